"""Forward mode of all ten groups beside the forward passes that it must at least cost.

    python -m tests.benchmarks.tangents --model resnet50 --images 1 --images 2

Seven tangents, random weights, one thread. The limit is the cheaper of one forward pass of
8·N images and eight of N. Printed are the median seconds of the limit and, as multiples of it,
those of the engine (``captum_lie.core.tangents``) and of ``vmap`` over ``jvp``, taken in turn in
one process.

Needs the extra ``timm``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from captum_lie.core.autodiff import _vmapped, differentiable, pushforward
from captum_lie.core.derivative import tangent_basis
from captum_lie.core.tangents import fallbacks
from captum_lie.groups import get_groups
from tests.benchmarks.measuring import compare

MODELS = (
    "resnet50",
    "tf_efficientnet_lite0",
    "convnext_tiny",
    "vit_tiny_patch16_224",
    "swin_tiny_patch4_window7_224",
    "mixer_s16_224",
)


def by_engine(model: nn.Module, x: Tensor, tangents: Tensor, chunk: int | None) -> Tensor:
    return pushforward(model, (x,), (tangents,), chunk_size=chunk)


def by_vmap(model: nn.Module, x: Tensor, tangents: Tensor, chunk: int | None) -> Tensor:
    with differentiable(), torch.no_grad():
        return _vmapped(model, (x,), (tangents,), chunk)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", action="append", help="timm name; repeat for several")
    parser.add_argument("--images", action="append", type=int, help="default 1 and 2")
    parser.add_argument("--size", type=int, default=224, help="pixels a side")
    parser.add_argument("--chunk", type=int, help="at most so many tangents at a time")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-vmap", action="store_true", help="time the engine alone")
    options = parser.parse_args()
    import timm

    torch.set_num_threads(options.threads)
    basis, _ = tangent_basis(get_groups("all"))
    print(f"{len(basis)} tangents, torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"{'model':30} {'images':>6} {'limit s':>8} {'engine':>7} {'vmap':>7} {'difference':>10}")
    for name in options.model or MODELS:
        torch.manual_seed(0)
        model = timm.create_model(name, pretrained=False).eval()
        for parameter in model.parameters():  # a head of zeros has no derivative
            if not parameter.any():
                nn.init.normal_(parameter, std=0.02)
        for n in options.images or (1, 2):
            x = torch.rand(n, 3, options.size, options.size)
            tangents = torch.stack([group.generator(x) for group in basis])
            rows = torch.cat([x[None], tangents]).flatten(0, 1)

            def stacked(model: nn.Module = model, rows: Tensor = rows) -> object:
                with torch.no_grad():
                    return model(rows)

            def looped(model: nn.Module = model, rows: Tensor = rows, n: int = n) -> object:
                with torch.no_grad():
                    return [model(row) for row in rows.split(n)]

            engine = partial(by_engine, model, x, tangents, options.chunk)
            vmap = partial(by_vmap, model, x, tangents, options.chunk)
            methods: dict[str, Callable[[], object]] = {
                "stacked": stacked,
                "looped": looped,
                "engine": engine,
            }
            difference = float("nan")
            if not options.no_vmap:
                methods["vmap"] = vmap
                expected = vmap()
                difference = float((engine() - expected).abs().max() / expected.abs().max())
            costs = {k: cost.seconds for k, cost in compare(methods, options.repeats).items()}
            limit = min(costs["stacked"], costs["looped"])
            ratio = costs.get("vmap", float("nan")) / limit
            print(
                f"{name:30} {n:6} {limit:8.3f} {costs['engine'] / limit:7.2f} {ratio:7.2f} "
                f"{difference:10.1e}",
                flush=True,
            )
            if fallen := fallbacks(model, (x,)):
                print(f"  without a rule: {dict(fallen)}", flush=True)


if __name__ == "__main__":
    main()
