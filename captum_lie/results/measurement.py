"""A measurement: several models on the same images, and how they were measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from captum_lie.core.gram import PrincipalDirections, principal_directions
from captum_lie.errors import InvalidValueError
from captum_lie.results.environment import Environment
from captum_lie.results.layerwise import LayerwiseResult
from captum_lie.results.record import ModelRecord, joined
from captum_lie.results.section import Section

#: Raised where what is stored changes its meaning.
SCHEMA_VERSION = 1


@dataclass(frozen=True, eq=False)
class Measurement:
    """What ``captum-lie measure``, ``demo`` and ``layers`` give, all that their reports show.

    Attributes:
        models: in the order of the tables; controls follow their models.
        title: of the report.
        settings: what was measured and how, in plain types.
        environment: where and when.
        first: position of the first image in the whole set, other than 0 for a shard.
        sections: what adapters add to the report.
        schema: version of the format in which it is stored.
    """

    models: tuple[ModelRecord, ...]
    title: str = "captum-lie"
    settings: dict[str, Any] = field(default_factory=dict)
    environment: Environment = field(default_factory=Environment)
    first: int = 0
    sections: tuple[Section, ...] = ()
    schema: int = SCHEMA_VERSION

    def __getitem__(self, name: str) -> ModelRecord:
        """The model of that name."""
        known = {model.name: model for model in self.models}
        if name not in known:
            raise KeyError(f"No model {name!r} was measured; there are {', '.join(known)}.")
        return known[name]

    @property
    def trained(self) -> tuple[ModelRecord, ...]:
        """The models that are not there as controls."""
        return tuple(model for model in self.models if model.trained)

    @property
    def table(self) -> pd.DataFrame:
        """LEE, a row per model and group: model, group, lee, stderr, relative_lee,
        relative_stderr, n, role, control_of."""
        return pd.concat([m.table() for m in self.models if m.lee is not None], ignore_index=True)

    @property
    def metrics(self) -> pd.DataFrame | None:
        """Baseline metrics, a row per model, metric and variant; None if none were measured."""
        parts = [
            m.metrics.to_dataframe().assign(model=m.name)
            for m in self.models
            if m.metrics is not None
        ]
        if not parts:
            return None
        table = pd.concat(parts, ignore_index=True)
        return table[["model", *(c for c in table.columns if c != "model")]]

    @property
    def layers(self) -> dict[str, list[LayerwiseResult]]:
        """Decompositions over the modules by model, one for each group."""
        return {m.name: list(m.layers) for m in self.models if m.layers}

    @property
    def directions(self) -> dict[str, PrincipalDirections]:
        """Eigenvalues and directions of each model's Gram matrix, where it was measured."""
        grams = {m.name: m.lee.gram for m in self.models if m.lee is not None}
        return {n: principal_directions(gram) for n, gram in grams.items() if gram is not None}


def merge(shards: Sequence[Measurement]) -> Measurement:
    """Shards of one measurement as a whole: exactly what measuring all images at once gives.

    Shards are put in the order of their first images. Pictures and sections are the first shard's.

    Raises:
        ValueError: no shards; or settings, models or weights differ; or images are missing
            between two shards or counted twice.
    """
    if not shards:
        raise InvalidValueError("There is nothing to merge.")
    ordered = sorted(shards, key=lambda shard: shard.first)
    whole = ordered[0]
    expected = whole.first
    for shard in ordered:
        _check_alike(whole, shard)
        if shard.first != expected:
            raise InvalidValueError(
                f"Images {min(expected, shard.first)} to {max(expected, shard.first) - 1} are "
                f"{'missing' if shard.first > expected else 'in two shards'}: merge each shard of "
                "one measurement once."
            )
        lee = shard.models[0].lee
        expected += 0 if lee is None else len(lee)
    return replace(
        whole,
        models=tuple(
            joined(list(parts)) for parts in zip(*(s.models for s in ordered), strict=True)
        ),
    )


def _check_alike(one: Measurement, other: Measurement) -> None:
    for what, first, second in (
        ("settings", one.settings, other.settings),
        ("schema versions", one.schema, other.schema),
        ("models", [m.name for m in one.models], [m.name for m in other.models]),
        ("subjects", [m.subject for m in one.models], [m.subject for m in other.models]),
    ):
        if first != second:
            raise InvalidValueError(
                f"These are not shards of one measurement: their {what} differ ({first} and "
                f"{second}). Measure all shards with the same options."
            )
