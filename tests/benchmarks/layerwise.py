"""Layerwise decomposition beside the literal estimator of the paper.

    python -m tests.benchmarks.layerwise --model resnet50 --probes 5

Needs the extra ``timm``. The literal estimator is run with ``--probes`` probes and its time scaled
to 100. The weights are random; the softmax is scaled so that the top class gets 90 %, as with
trained ones. Prints median seconds, ratios, peak memory, and how much time ``norm`` takes to the
same standard error.
"""

from __future__ import annotations

import argparse
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import captum_lie_timm  # noqa: F401 (registers the layouts of timm's modules)
from captum_lie import get_groups
from captum_lie.core.derivative import OutputFn
from captum_lie.layerwise import LayerwiseEquivarianceError
from captum_lie.layerwise.hooks import frozen
from tests.benchmarks.literal import Layouts, confident_softmax, leaf_layouts, literal
from tests.benchmarks.measuring import compare


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", action="append", help="timm name; repeat for several")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--probes", type=int, default=4, help="probes of the literal estimator")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    import timm

    group, both = get_groups(["translation_x", "rotation"])
    every = get_groups("all")
    print(f"batch {options.batch}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    for name in options.model or ["resnet50", "vit_tiny_patch16_224"]:
        torch.manual_seed(0)
        model = timm.create_model(name, pretrained=False).eval()
        x = torch.rand(options.batch, 3, 224, 224)
        confident = confident_softmax(model, x)
        method = LayerwiseEquivarianceError(model, output_fn=confident)
        layouts = leaf_layouts(model, x)

        def forward(model: nn.Module = model, x: Tensor = x) -> Tensor:
            with torch.no_grad():
                return model(x)

        def paper(
            model: nn.Module = model,
            x: Tensor = x,
            layouts: Layouts = layouts,
            confident: OutputFn = confident,
        ) -> object:
            with sdpa_kernel(SDPBackend.MATH), frozen(model):
                return literal(model, x, group, layouts, options.probes, confident)

        costs = compare(
            {
                "forward pass": forward,
                "aligned, exact": partial(method.attribute, x, group),
                "target, translation x": partial(method.attribute, x, [group], "target", target=0),
                "target, rotation": partial(method.attribute, x, [both], "target", target=0),
                "target, all groups": partial(method.attribute, x, every, "target", target=0),
                "norm, 20 probes": partial(method.attribute, x, group, "norm", n_probes=20),
                f"literal, {options.probes} probes": paper,
            },
            options.repeats,
        )
        unit = costs["forward pass"].seconds
        print(f"\n{name}: {len(layouts)} leaves")
        print(f"{'method':28} {'seconds':>8} {'forwards':>9} {'peak MiB':>9}")
        for label, cost in costs.items():
            print(f"{label:28} {cost.seconds:8.2f} {cost.seconds / unit:9.1f} {cost.memory:9.0f}")
        literal_100 = costs[f"literal, {options.probes} probes"].seconds / options.probes * 100
        print(f"{'literal, 100 probes (scaled)':28} {literal_100:8.2f} {literal_100 / unit:9.1f}")
        print(f"aligned is {literal_100 / costs['aligned, exact'].seconds:.0f} times faster than "
              "100 probes, and exact")  # fmt: skip
        one, two, all_of_them = (
            costs[f"target, {label}"].seconds
            for label in ("translation x", "rotation", "all groups")
        )
        further = (all_of_them - two) / (len(every) - 1) / unit
        print(f"a further group (target) costs {further:.2f} forward passes, the first that also "
              f"moves rows {(two - one) / unit:.2f}")  # fmt: skip
        # Gaussian probes have relative standard error √(2/P): compare at equal standard error.
        result = method.attribute(x, group, "norm", n_probes=20)
        assert result.stderr is not None
        rows = [i for i, row in enumerate(result.rows) if row.module in layouts]
        ratio = (result.stderr[rows] / result.contributions[rows]).nanmedian().item()
        needed = 2 / max(ratio, 1e-2) ** 2
        seconds = costs[f"literal, {options.probes} probes"].seconds / options.probes * needed
        faster = seconds / costs["norm, 20 probes"].seconds
        print(f"norm with 20 probes has the standard error of {needed:.0f} Gaussian probes or more "
              f"(median leaf): {faster:.0f} times faster at equal standard error")  # fmt: skip


if __name__ == "__main__":
    main()
