"""How the time of a task grows with images, pixels, groups, modules and probes, as a picture.

    python -m tests.benchmarks.growth --model resnet18 --out growth.png

Seconds beside one forward pass of one image of 224 × 224 (for modules: of a chain of convolutions).
Straight lines through the origin on these axes are what one hopes for. Needs the extra ``timm``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from captum_lie import LayerwiseEquivarianceError, LocalEquivarianceError, get_groups
from captum_lie.groups import SpatialGroup
from tests.benchmarks.__main__ import model_of
from tests.benchmarks.measuring import compare
from tests.benchmarks.tasks import Run

#: What grows, and how far.
AXES: dict[str, tuple[int, ...]] = {
    "images": (1, 2, 4, 8),
    "pixels": (64**2, 128**2, 192**2, 256**2),
    "groups": (1, 3, 6, 9),
    "modules": (8, 16, 32, 64),
    "probes": (4, 8, 16, 32),
}


def forward(model: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        model(x)


def chain(length: int) -> nn.Module:
    """So many 3 × 3 convolutions of 16 channels, each with a rectifier."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1)]
    while len(layers) < length:
        layers += [nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)).eval()


def runs(axis: str, value: int, model: nn.Module) -> dict[str, Run]:
    """What is timed at one point of an axis."""
    spatial = [group for group in get_groups("all") if isinstance(group, SpatialGroup)]
    if axis == "images":
        return _both(model, torch.rand(value, 3, 224, 224), spatial[:1])
    if axis == "pixels":
        side = round(value**0.5)
        return _both(model, torch.rand(1, 3, side, side), spatial[:1])
    if axis == "groups":
        return _both(model, torch.rand(1, 3, 224, 224), spatial[:value])
    if axis == "modules":
        return _both(chain(value), torch.rand(1, 3, 112, 112), spatial[:1])
    x = torch.rand(1, 3, 224, 224)
    score = LocalEquivarianceError(model)
    norm = LayerwiseEquivarianceError(model)
    return {
        "control": partial(score.control_score, x, n_probes=value),
        "layers, norm": partial(norm.attribute, x, spatial[:1], "norm", n_probes=value),
    }


def _both(model: nn.Module, x: Tensor, groups: Sequence[object]) -> dict[str, Run]:
    score: Callable[..., object] = LocalEquivarianceError(model).score
    layers: Callable[..., object] = LayerwiseEquivarianceError(model).attribute
    return {
        "forward pass": partial(forward, model, x),
        "score": partial(score, x, groups),
        "layers, aligned": partial(layers, x, groups),
    }


def measured(model: nn.Module, repeats: int) -> pd.DataFrame:
    """Columns axis, value, method, seconds and, beside a forward pass of one image, ratio."""
    unit = {"one": partial(forward, model, torch.rand(1, 3, 224, 224))}
    table = []
    for axis, values in AXES.items():
        for value in values:
            costs = compare(unit | runs(axis, value, model), repeats)
            one = costs.pop("one").seconds
            for method, cost in costs.items():
                table.append((axis, value, method, cost.seconds, cost.seconds / one))
            print(axis, value, {m: round(c.seconds / one, 2) for m, c in costs.items()}, flush=True)
    return pd.DataFrame(table, columns=["axis", "value", "method", "seconds", "ratio"])


def drawn(table: pd.DataFrame, name: str) -> Figure:
    figure = Figure(figsize=(12, 3), layout="constrained")
    panels = figure.subplots(1, len(AXES))
    for panel, (axis, part) in zip(panels, table.groupby("axis", sort=False), strict=True):
        for method, line in part.groupby("method", sort=False):
            panel.plot(line["value"], line["ratio"], marker="o", markersize=3, label=method)
        panel.set_xlabel(axis)
        panel.set_xlim(0)
        panel.set_ylim(0)
        panel.legend(fontsize=6)
        panel.ticklabel_format(axis="x", scilimits=(-3, 4))
    panels[0].set_ylabel("forward passes of one image")
    figure.suptitle(f"{name}, random weights; modules: a chain of convolutions", fontsize=9)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="resnet18", help="timm name")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("growth.png"), help="CSV goes beside it")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    table = measured(model_of(options.model), options.repeats)
    table.to_csv(options.out.with_suffix(".csv"), index=False)
    drawn(table, options.model).savefig(options.out, dpi=150)


if __name__ == "__main__":
    main()
