"""What is measured of modules beside LEE's decomposition, for comparison with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from captum_lie.core.groups import OneParameterGroup
from captum_lie.core.loaders import over_batches
from captum_lie.layerwise import (
    LayerwiseSampledError,
    SubnetworkEquivarianceError,
    SubnetworkResult,
)
from captum_lie.results import ModelRecord


@dataclass(frozen=True)
class LayerBaselines:
    """Which comparisons, and how.

    Attributes:
        metrics: sampled errors of each module alone; see
            :class:`captum_lie.layerwise.LayerwiseSampledError`.
        subnetworks: errors of the head networks; see
            :class:`captum_lie.SubnetworkEquivarianceError`.
        n_samples, seed: of the sampled errors.
    """

    metrics: tuple[str, ...] = ()
    subnetworks: bool = False
    n_samples: int = 4
    seed: int = 0


def with_baselines(
    record: ModelRecord,
    model: nn.Module,
    batches: Sequence[Any],
    groups: Sequence[OneParameterGroup],
    baselines: LayerBaselines,
) -> ModelRecord:
    """A model's record with the comparisons that are asked for; head networks for each group."""
    sampled = (
        LayerwiseSampledError(model).evaluate(
            batches, baselines.metrics, n_samples=baselines.n_samples, seed=baselines.seed
        )
        if baselines.metrics
        else []
    )
    heads = _head_networks(model, batches, groups) if baselines.subnetworks else []
    return replace(record, sampled=tuple(sampled), subnetworks=tuple(heads))


def _head_networks(
    model: nn.Module, batches: Sequence[Any], groups: Sequence[OneParameterGroup]
) -> list[SubnetworkResult]:
    method = SubnetworkEquivarianceError(model)
    parts = [
        method.attribute(images, list(groups))
        for _, images, _ in over_batches(model, batches, "head networks", show_progress=False)
    ]
    return [SubnetworkResult.concatenate(of_one) for of_one in zip(*parts, strict=True)]
