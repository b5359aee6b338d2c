"""LEE of a model, by whichever means it offers: exact derivatives or finite differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from captum_lie import metrics
from captum_lie.extending.metrics import summarise
from captum_lie.extending.tensors import progress
from captum_lie.groups import OneParameterGroup, SpatialGroup
from captum_lie.metrics import MetricResult, MetricTable
from captum_lie_onnx.behaviour import Array, Model, Plan


def exact(
    score: Callable[[Tensor], Tensor],
    images: Tensor,
    groups: Sequence[OneParameterGroup],
    plan: Plan,
) -> list[MetricResult]:
    """LEE of each group from exact derivatives.

    Args:
        score: images ``[n, 3, H, W]`` to the LEE of each under every group, ``[n, G]``.
    """
    parts = images.split(plan.batch_size)
    scores = [score(x).cpu() for x in progress(parts, "exact LEE", len(parts), plan.show_progress)]
    values = torch.cat(scores).double().numpy()
    none = np.zeros(len(values))
    return [_result(group, values[:, i], "exact", none) for i, group in enumerate(groups)]


def by_finite_differences(
    model: Model,
    images: Tensor,
    groups: Sequence[OneParameterGroup],
    plan: Plan,
    precision: float | None,
) -> list[MetricResult]:
    """LEE of each group from finite differences, with error bars.

    Args:
        precision: relative rounding of the model's activations; None for that of its output.
    """
    if not groups:
        return []
    table = metrics.finite_difference_lee(
        model,
        images,
        list(groups),
        precision=precision,
        batch_size=plan.batch_size,
        show_progress=plan.show_progress,
    )
    return [
        _result(group, r.per_example, "finite differences", r.numerical_error)
        for group, r in zip(groups, table, strict=True)
    ]


def in_order(results: Sequence[MetricResult], plan: Plan) -> MetricTable:
    """Results as one table, in the order of the plan's groups."""
    order = [group.name for group in plan.groups]
    return MetricTable(sorted(results, key=lambda r: order.index(r.variant)))


def _result(
    group: OneParameterGroup, per_example: Array, method: str, error: Array | None
) -> MetricResult:
    interpolation, border = group.rule if isinstance(group, SpatialGroup) else ("none", "none")
    return summarise(
        "lee",
        per_example,
        variant=group.name,
        unit="mean square of the output per unit of t²",
        border=border,
        parameters={"interpolation": interpolation, "method": method},
        numerical_error=error,
    )
