"""Small cells whose numbers are known."""

from __future__ import annotations

import numpy as np
import torch

from captum_lie.results import LayerwiseResult, LeeResult, MetricTable, ModelRecord, SampledResult
from captum_lie.results.cell import Cell
from captum_lie.results.metrics import summarise
from captum_lie.results.rows import Row
from captum_lie.results.subnetworks import SubnetworkResult

GROUPS = ("translation_x", "rotation", "shear_x", "hyperbolic_rotation", "brightness", "stretch_x")
KINDS = ("convolution", "non-linearity", "convolution")


def rows() -> list[Row]:
    """The model, and three leaves in it."""
    return [
        Row(module=f"m{i}" if i else "", type="M", kind=kind, call=0, depth=int(i > 0),
            is_leaf=i > 0, resolved=True, input_layout=(), output_layout=(), parent=0 if i else -1)
        for i, kind in enumerate(("functional", *KINDS))
    ]  # fmt: skip


def column(values: list[float]) -> torch.Tensor:
    """The same for both images."""
    return torch.tensor(values).double()[:, None].expand(4, 2)


def record(name: str, values: tuple[float, float], *, right: int | None = None) -> ModelRecord:
    """Two images; the LEE of group g is ``(g + 1)`` times the values, the control 2."""
    lee = torch.tensor(values).double()[:, None] * torch.arange(1.0, len(GROUPS) + 1)
    square = torch.diag(torch.tensor([1.0, 9.0, 0.0, 0.0, 0.0, 0.0]).double())
    own = torch.tensor([[0.0, 0.0], [1.0, 3.0], [-4.0, -4.0], [1.0, 1.0]]).double()
    sampled = [9.0, 4.0, 8.0, 4.0], [1.0, 4.0, 1.0, 16.0], [1.0] * 4, [1.0] * 4
    angles = np.array([[0.1, -0.1], [0.3, -0.3]])
    return ModelRecord(
        name,
        lee=LeeResult(
            GROUPS, lee, torch.full_like(lee, 2.0), torch.full_like(lee, 0.5),
            square.expand(2, 6, 6),
        ),
        metrics=MetricTable(
            [
                summarise("consistency", np.array([0.5, 0.0]), unit="share", border="reflect",
                          variant="unshifted"),
                summarise("group_sample", np.array([0.01, 0.02]), unit="mse", border="reflect",
                          variant="rotation", transformations={"t": angles}),
            ]
        ),
        layers=(
            LayerwiseResult(rows(), "translation_x", "aligned", own.sum(0), own, own, None, ""),
        ),
        sampled=(SampledResult(rows(), "eq_t", *(column(v) for v in sampled)),),
        subnetworks=(
            SubnetworkResult(rows(), "rotation", torch.ones(4), torch.tensor([[1.0], [4.0], [9.0],
                [16.0]]).expand(4, 2), torch.ones(4, 2), torch.ones(4, 2)),
        ),
        correct=None if right is None else torch.tensor([i < right for i in range(2)]),
    )  # fmt: skip


def cell(
    label: str,
    values: tuple[float, float] = (1.0, 3.0),
    *,
    images: str = "test",
    kind: str = "modern CNN",
    right: int | None = 1,
    n_probes: int = 8,
) -> Cell:
    """A cell with that record."""
    return Cell(
        f"{label} {images} {n_probes}", label, label, images, family=f"family of {kind}", kind=kind,
        records=(record(label, values, right=right),), settings={"n_probes": n_probes},
    )  # fmt: skip
