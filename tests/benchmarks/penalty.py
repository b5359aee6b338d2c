"""One step of training with the penalty beside one without.

    python -m tests.benchmarks.penalty --model vit --model resnet18

A step is the forward pass, the loss and the backward pass, in training mode. Printed are the median
seconds of the plain step and, as multiples of it,

- shared: with one random direction, from the same evaluation (``with_output``),
- apart: the same by a call of its own beside the plain forward pass,
- 3 groups: with three groups exactly, from the same evaluation,
- reverse: with one group by reverse mode three times, which is PyTorch's way where it has one (it
  is wrong on layer normalisation, see ``captum_lie.core.differentiable``).

Needs the extra ``timm`` for other than the embedded models.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_lie import LiePenalty, Rotation
from captum_lie.core.autodiff import differentiable
from captum_lie.examples import MODEL_NAMES
from captum_lie.examples.models import build
from tests.benchmarks.measuring import compare

MODELS = {  # images of a batch, pixels a side
    "vit": (64, 32),
    "cnn": (64, 32),
    "mixer": (64, 32),
    "resnet18": (16, 64),
    "vit_tiny_patch16_224": (4, 224),
}
GROUPS = ["rotation", "translation_x", "scale"]

Step = Callable[[nn.Module, Tensor, Tensor], Tensor]


def plain(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(model(x), y)


def shared(penalty: LiePenalty, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    logits, error = penalty.with_output(model, x)
    return F.cross_entropy(logits, y) + error


def apart(penalty: LiePenalty, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return plain(model, x, y) + penalty(model, x)


def by_reverse_mode(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    with differentiable():
        leaf = x.clone().requires_grad_()
        logits = model(leaf)
        p = logits.softmax(1)
        u = torch.ones_like(p, requires_grad=True)
        (g,) = torch.autograd.grad(p, leaf, u, create_graph=True)
        (derivative,) = torch.autograd.grad(g, u, Rotation().generator(x), create_graph=True)
        return F.cross_entropy(logits, y) + derivative.square().mean()


def step(loss: Step, model: nn.Module, x: Tensor, y: Tensor) -> None:
    model.zero_grad()
    loss(model, x, y).backward()


def possible(run: Callable[[], None]) -> bool:
    """PyTorch has no third derivative of batch normalisation in training mode."""
    try:
        run()
    except RuntimeError:
        return False
    return True


STEPS: dict[str, Step] = {
    "plain": plain,
    "shared": partial(shared, LiePenalty(GROUPS, directions="random")),
    "apart": partial(apart, LiePenalty(GROUPS, directions="random")),
    "3 groups": partial(shared, LiePenalty(GROUPS)),
    "reverse": by_reverse_mode,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", action="append", help="embedded or timm name; repeat for more")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--eval", action="store_true", help="models in evaluation mode")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options.threads} threads")
    names = [name for name in STEPS if name != "plain"]
    print(f"{'model':22} {'plain s':>8}" + "".join(f"{n:>10}" for n in names))
    for name in options.model or MODELS:
        batch, size = MODELS.get(name, (4, 224))
        torch.manual_seed(0)
        model: nn.Module
        if name in MODEL_NAMES:
            model = build(name)
        else:
            import timm

            model = timm.create_model(name, pretrained=False, num_classes=100)
        model.train(not options.eval)
        x, y = torch.rand(batch, 3, size, size), torch.arange(batch) % 8
        steps = {n: partial(step, loss, model, x, y) for n, loss in STEPS.items()}
        costs = compare({n: s for n, s in steps.items() if possible(s)}, options.repeats)
        base = costs["plain"]
        ratios = "".join(
            f"{costs[n].seconds / base.seconds:10.2f}" if n in costs else f"{'-':>10}"
            for n in names
        )
        print(f"{name:22} {base.seconds:8.3f}{ratios}", flush=True)


if __name__ == "__main__":
    main()
