"""Layerwise decomposition of one model from every timm family: completeness and resolved share.

    python -m tests.timm.families --families vision_transformer,convnext --limit-seconds 60

A family is a module of ``timm.models``; its smallest variant runs with random weights on two
random images under translation, in a process of its own with a memory limit. Printed are the
relative errors of the root's contribution and of the sum of self contributions against
``‖L f‖²`` by forward mode, and the shares of leaves and of blocks whose layouts are known.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import timm
import torch
from timm.data.config import resolve_model_data_config
from torch import nn

import captum_lie_timm  # noqa: F401 (registers the layouts)
from captum_lie.layerwise import LayerwiseEquivarianceError, LayerwiseResult
from tests.timm.table import print_table

LARGEST_SIZE = 256
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        root_error, sum_error: largest relative differences over the images from forward mode's
            ``‖L f‖²`` of the root's contribution and of the sum of self contributions.
        leaves: share of the leaf calls whose own contribution is given rather than folded.
        blocks: the same of containers that are elements of a sequence of modules.
        status: ``ok``, or what went wrong.
    """

    family: str
    model: str
    seconds: float = math.nan
    root_error: float = math.nan
    sum_error: float = math.nan
    leaves: float = math.nan
    blocks: float = math.nan
    status: str = "ok"

    def __str__(self) -> str:
        errors = f"{self.root_error:8.1e} {self.sum_error:8.1e}"
        shares = f"{self.leaves:7.3f} {self.blocks:7.3f}"
        return (
            f"{self.family:27} {self.model:36} {self.seconds:6.1f} {errors} {shares}  {self.status}"
        )


def smallest_model(family: str) -> str:
    """The variant with the fewest parameters, at an input of at most 256 pixels if there is one."""
    names = [n for n in timm.list_models(module=family) if not n.startswith("test_")]

    def cost(name: str) -> tuple[int, int]:
        with torch.device("meta"):
            model = timm.create_model(name)
        return max(input_size(model)[-1], LARGEST_SIZE), sum(p.numel() for p in model.parameters())

    return min(names, key=cost)


def input_size(model: nn.Module) -> tuple[int, int, int]:
    channels, height, width = resolve_model_data_config(model)["input_size"]
    return channels, height, width


def make(name: str, seed: int = 0, **options: Any) -> nn.Module:
    """A model with random weights, none of them zero: a head of zeros has no error to decompose."""
    torch.manual_seed(seed)
    model: nn.Module = timm.create_model(name, **options).eval()
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return model


def decompose(model: nn.Module, size: tuple[int, int, int], seed: int = 0) -> LayerwiseResult:
    """The aligned decomposition on two random images under translation along x.

    Of the scores before softmax, which random weights may saturate.
    """
    torch.manual_seed(seed)
    images = torch.rand(2, *size)
    return LayerwiseEquivarianceError(model, output_fn=None).attribute(images, "translation_x")


def relative_error(value: torch.Tensor, total: torch.Tensor) -> float:
    return float(((value - total) / total).abs().max())


def block_share(result: LayerwiseResult) -> float:
    """Share of resolved calls among blocks: containers that are elements of a sequence."""
    blocks = [row.resolved for row in result.rows if not row.is_leaf and is_element(row.module)]
    return sum(blocks) / len(blocks) if blocks else 1.0


def is_element(module: str) -> bool:
    """Whether a dotted name is that of an element of a sequence."""
    return module.rpartition(".")[2].isdigit()


def measure(name: str, family: str = "") -> Row:
    """Decompose one model."""
    model = make(name)
    start = time.perf_counter()
    result = decompose(model, input_size(model))
    seconds = time.perf_counter() - start
    errors = (
        relative_error(result.contributions[0], result.total),
        relative_error(result.self_contributions.nansum(0), result.total),
    )
    complete = all(error < TOLERANCE for error in errors)  # false for NaN, too
    shares = result.resolved_share, block_share(result)
    return Row(family, name, seconds, *errors, *shares, "ok" if complete else "incomplete")


def main() -> None:
    print_table(
        Row, smallest_model, measure, description=__doc__, good="complete", seconds=60, gigabytes=6
    )


if __name__ == "__main__":
    main()
