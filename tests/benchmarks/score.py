"""LEE under 8 groups, beside double backward per group and a bare stacked forward pass.

(a) is what the paper's released code does: each flow is differentiated by the double-backward
trick, one group at a time. (b) is the yardstick: the model evaluated once on (1 + G) · N images.

    python -m tests.benchmarks.score --model resnet50 --batch 4

Needs the extra ``timm``. Prints median seconds, ratios and peak memory.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from captum_lie import GROUP_NAMES, LocalEquivarianceError, get_groups
from captum_lie.groups import OneParameterGroup
from tests.benchmarks.measuring import compare


def by_double_backward(model: nn.Module, x: Tensor, groups: list[OneParameterGroup]) -> Tensor:
    """LEE with one double-backward derivative of t ↦ f(act(x, t)) at t = 0 for each group."""
    scores = []
    for group in groups:
        t = torch.zeros((), requires_grad=True)
        output = model(group.act(x, t)).softmax(1)
        dummy = torch.zeros_like(output, requires_grad=True)
        (gradient,) = torch.autograd.grad(output, t, dummy, create_graph=True)
        (derivative,) = torch.autograd.grad(gradient, dummy)
        scores.append(derivative.square().mean(1))
    return torch.stack(scores, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", action="append", help="timm name; repeat for several")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--groups", type=int, default=8, help="how many, at most 10")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    import timm

    groups = get_groups(GROUP_NAMES[: options.groups])
    print(f"{options.groups} groups, batch {options.batch}, torch {torch.__version__}, "
          f"{torch.get_num_threads()} threads")  # fmt: skip
    print(f"{'model':24} {'method':34} {'seconds':>8} {'ours is':>9} {'peak MiB':>9}")
    for name in options.model or ["resnet50", "vit_tiny_patch16_224"]:
        torch.manual_seed(0)
        model = timm.create_model(name, pretrained=False).eval()
        x = torch.rand(options.batch, 3, 224, 224)
        method = LocalEquivarianceError(model)
        stacked = x.repeat(1 + len(groups), 1, 1, 1)

        def bare(model: nn.Module = model, stacked: Tensor = stacked) -> Tensor:
            with torch.no_grad():
                return model(stacked)

        def double_backward(model: nn.Module = model, x: Tensor = x) -> Tensor:
            with sdpa_kernel(SDPBackend.MATH):
                return by_double_backward(model, x, groups)

        def ours(method: LocalEquivarianceError = method, x: Tensor = x) -> Tensor:
            return method.score(x, groups)

        error = (ours() - double_backward()).abs().max() / ours().max()
        costs = compare(
            {"captum-lie score": ours, "(a) double backward": double_backward,
             "(b) bare forward, (1+G)·N images": bare},
            options.repeats,
        )  # fmt: skip
        base = costs["captum-lie score"].seconds
        for label, cost in costs.items():
            ratio = cost.seconds / base
            note = f"{ratio:.2f}x" if ratio >= 1 else f"1/{1 / ratio:.2f}"
            print(f"{name:24} {label:34} {cost.seconds:8.2f} {note:>9} {cost.memory:9.0f}")
        print(f"{name:24} largest difference between ours and (a), relative: {error:.1e}")


if __name__ == "__main__":
    main()
