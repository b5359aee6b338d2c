"""Contributions of the modules of one model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from captum_lie import (
    GROUP_NAMES,
    LayerLieDerivative,
    LayerwiseEquivarianceError,
    SubnetworkEquivarianceError,
)
from captum_lie.layerwise import LayerwiseResult, LayerwiseSampledError
from tests.numbers.families import Families, column, digest, named
from tests.numbers.subjects import Subject

GROUPS = ("translation_x", "rotation", "brightness")


def by_module(table: pd.DataFrame, modules: Sequence[str]) -> pd.DataFrame:
    """The first call of each of these modules, by name."""
    first = table[table["call"] == 0].set_index("module")
    return first.loc[list(modules)].rename(index={"": "model"})


def decomposed(subject: Subject, results: Iterable[LayerwiseResult]) -> Families:
    """Rows of some modules, and the total of each image with what is left of it."""
    found: Families = {}
    for result in results:
        table = by_module(result.to_dataframe(), subject.modules)
        own = column(table[~table["is_leaf"]], "self_contribution")
        found[f"{result.group}, rows"] = {
            **column(table, "contribution"),
            **{f"{module} alone": value for module, value in own.items()},
        }
        everything = result.self_contributions.nansum(0)
        found[f"{result.group}, total"] = {
            **named((f"total {i}" for i in range(len(result.total))), result.total),
            **named((f"sum of rows {i}" for i in range(len(everything))), everything),
        }
    return found


def aligned(subject: Subject) -> Families:
    """Of some groups; of one layer under all groups, which share the basis of aff(2)."""
    method = LayerwiseEquivarianceError(subject.model)
    found = decomposed(subject, method.attribute(subject.images, GROUPS))
    row = subject.modules.index(subject.layer)
    values = []
    for result in method.attribute(subject.images, GROUP_NAMES):
        table = by_module(result.to_dataframe(), subject.modules)
        values.append(table["contribution"].iloc[row])
    return {**found, f"all groups, {subject.layer}": dict(zip(GROUP_NAMES, values, strict=True))}


def target(subject: Subject) -> Families:
    """Of each image's own class, and one layer's by pixels and channels."""
    results = LayerwiseEquivarianceError(subject.model).attribute(
        subject.images, GROUPS, measure="target", target=subject.labels
    )
    maps = LayerLieDerivative(subject.model, subject.layer).attribute(
        subject.images, target=subject.labels, group="rotation"
    )
    return {**decomposed(subject, results), f"map, {subject.layer}": digest(maps)}


def norm(subject: Subject, method: str, **options: Any) -> Families:
    """Squared norms of the contributions.

    Args:
        method: how they have to be computed.
        options: probes.
    """
    results = LayerwiseEquivarianceError(subject.model).attribute(
        subject.images, GROUPS, measure="norm", seed=3, **options
    )
    assert all(method in result.method for result in results), results[0].method
    return decomposed(subject, results)


def subnetworks(subject: Subject) -> Families:
    """Errors from the image to some modules, on the three scales that compare them."""
    results = SubnetworkEquivarianceError(subject.model).attribute(subject.images, GROUPS[:2])
    tables = {r.group: by_module(r.to_dataframe(), subject.modules) for r in results}
    scales = ("lee", "relative_to_generator", "relative_to_features")
    return {f"{group}, {s}": column(table, s) for group, table in tables.items() for s in scales}


def sampled(subject: Subject, **options: Any) -> Families:
    """EQ-T, fractional EQ-T and EQ-R of each of some modules alone.

    Args:
        options: metrics, border, mask.
    """
    images, rest = subject.images[:1], subject.images[1:2]
    results = LayerwiseSampledError(subject.model).evaluate(
        [images, rest], n_samples=1, seed=3, **options
    )
    tables = {r.metric: by_module(r.to_dataframe(), subject.modules) for r in results}
    scales = ("relative_to_output", "relative_to_change")
    return {f"{metric}, {s}": column(table, s) for metric, table in tables.items() for s in scales}
