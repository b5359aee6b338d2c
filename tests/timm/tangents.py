"""The tangent engine beside PyTorch's forward mode, on one model from every timm family.

    python -m tests.timm.tangents --families vision_transformer,convnext --limit-seconds 120

The smallest variant of each module of ``timm.models`` runs with random weights on two random images
with two random tangents, in a process of its own with a memory limit. Printed are the largest
difference from ``torch.func.jvp`` relative to the largest derivative, in float32 and, where that
is above 1e-4, in float64; the time over that of ``vmap`` over ``jvp``; and the operations without a
rule of ours.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from captum_lie.core.autodiff import _duals, _stacked, _vmapped, differentiable
from captum_lie.core.tangents import fallbacks
from captum_lie.core.validation import is_out_of_memory
from tests.timm.families import input_size, make, smallest_model
from tests.timm.table import print_table

TOLERANCE = 1e-4


@dataclass(frozen=True)
class Row:
    """One line of the table; ``ratio`` is the engine's time over that of PyTorch's method."""

    family: str
    model: str
    float32: float = math.nan
    float64: float = math.nan
    ratio: float = math.nan
    method: str = ""
    fallen: str = ""
    status: str = "ok"

    def __str__(self) -> str:
        numbers = f"{self.float32:8.1e} {self.float64:8.1e} {self.ratio:6.2f} {self.method:5}"
        return f"{self.family:27} {self.model:36} {numbers} {self.status}  {self.fallen}"


def derivatives(
    model: nn.Module, images: Tensor, tangents: Tensor
) -> tuple[Tensor, Tensor, float, str]:
    """By the engine, by PyTorch, the ratio of their times, and how PyTorch did it."""
    with torch.no_grad(), differentiable():
        start = time.perf_counter()
        ours = _stacked(model, (images,), (tangents,), None)
        middle = time.perf_counter()
        name, theirs = _by_torch(model, images, tangents)
        end = time.perf_counter()
    return ours, theirs, (middle - start) / (end - middle), name


def _by_torch(model: nn.Module, images: Tensor, tangents: Tensor) -> tuple[str, Tensor]:
    try:
        return "vmap", _vmapped(model, (images,), (tangents,), None)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        return "duals", _duals(model, (images,), (tangents,), None)


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Largest over largest: one that is zero everywhere has nothing to be compared with."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


def measure(name: str, family: str = "") -> Row:
    """Compare one model."""
    model = make(name)
    torch.manual_seed(0)
    images = torch.rand(2, *input_size(model))
    tangents = torch.randn(2, *images.shape)
    ours, theirs, ratio, method = derivatives(model, images, tangents)
    row = Row(family, name, difference(ours, theirs), ratio=ratio, method=method)
    with differentiable():
        row = replace(row, fallen=", ".join(sorted(fallbacks(model, (images,)))))
    if row.float32 <= TOLERANCE:
        return row
    exact = derivatives(model.double(), images.double(), tangents.double())
    row = replace(row, float64=difference(*exact[:2]))
    return row if row.float64 <= 1e-9 else replace(row, status="differs")


def main() -> None:
    print_table(
        Row, smallest_model, measure, description=__doc__, good="agree", seconds=120, gigabytes=8
    )


if __name__ == "__main__":
    main()
