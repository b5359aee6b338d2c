"""The main job: LEE of models over images, and maps of which pixels are to blame."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, Literal

import pandas as pd
import torch
from torch import Tensor, nn

from captum_lie import metrics
from captum_lie._data import to_model
from captum_lie.attribution import LocalEquivarianceError
from captum_lie.gram import PrincipalDirections, principal_directions
from captum_lie.groups import OneParameterGroup, SpatialGroup

UNTRAINED = " (untrained)"
COLUMNS = ["model", "group", "lee", "stderr", "relative_lee", "relative_stderr", "n"]


@dataclass
class Picture:
    """Maps of one image: ``maps[model][group]`` is ``[C, H, W]`` and sums to the image's LEE."""

    image: Tensor
    maps: dict[str, dict[str, Tensor]] = field(default_factory=dict)


@dataclass
class Measurement:
    """What a report shows.

    Attributes:
        table: columns ``model, group, lee, stderr, relative_lee, relative_stderr, n``; rows of
            untrained controls carry the name of their model with " (untrained)".
        directions: for each trained model the eigenvalues and directions of its Gram matrix.
        pictures: attribution maps of the first images.
        settings: what was measured and how, for the record.
        metrics: baseline metrics, if any: those of :class:`captum_lie.metrics.MetricTable`, with a
            column ``model``.
    """

    table: pd.DataFrame
    directions: dict[str, PrincipalDirections]
    pictures: list[Picture]
    settings: dict[str, Any]
    metrics: pd.DataFrame | None = None


def measure(
    models: dict[str, nn.Module],
    batches: Iterable[Tensor],
    groups: Sequence[OneParameterGroup],
    *,
    norm: Literal["l2", "l1"] = "l2",
    pictured: int | Tensor = 3,
    relative: bool = True,
    n_probes: int = 8,
    seed: int = 0,
    internal_batch_size: int | None = None,
    show_progress: bool = False,
    settings: dict[str, Any] | None = None,
) -> Measurement:
    """Measure LEE of each model, and attribute it for the first images.

    Args:
        models: by name; a name ending in " (untrained)" marks a control, which gets no pictures.
        batches: image batches ``[n, C, H, W]``; read once for each model.
        groups: what to measure.
        norm: see :class:`captum_lie.LocalEquivarianceError`.
        pictured: how many images to attribute, or these images themselves ``[n, C, H, W]``.
        relative: also measure the control, for the relative LEE.
        n_probes, seed: of the control of models with more than 32 outputs.
        internal_batch_size: at most so many examples × tangents at a time.
        show_progress: show a progress bar for each model.
        settings: for the record.
    """
    tables: list[pd.DataFrame] = []
    directions: dict[str, PrincipalDirections] = {}
    pictures: list[Picture] = []
    spatial = any(isinstance(g, SpatialGroup) for g in groups)
    for name, model in models.items():
        method = LocalEquivarianceError(model, norm=norm)
        trained = not name.endswith(UNTRAINED)
        found = method.collect(
            batches,
            groups,
            relative=relative,
            gram=trained and spatial and norm == "l2",
            n_probes=n_probes,
            seed=seed,
            internal_batch_size=internal_batch_size,
            show_progress=show_progress,
            description=name,
        )
        tables.append(found.to_dataframe().assign(model=name)[COLUMNS])
        if not trained:
            continue
        if found.gram is not None:
            directions[name] = principal_directions(found.gram)
        if not pictures:
            shown = (
                islice(chain.from_iterable(batches), pictured)
                if isinstance(pictured, int)
                else pictured
            )
            pictures = [Picture(image) for image in shown]
        if pictures:
            images = to_model(model, torch.stack([picture.image for picture in pictures]))
            for group in groups:
                maps = method.attribute(
                    images, group=group, internal_batch_size=internal_batch_size
                )
                for picture, attribution in zip(pictures, maps.cpu(), strict=True):
                    picture.maps.setdefault(name, {})[group.name] = attribution
    return Measurement(pd.concat(tables, ignore_index=True), directions, pictures, settings or {})


def baseline_table(
    models: dict[str, nn.Module],
    batches: Iterable[Tensor],
    names: Sequence[str],
    groups: Sequence[OneParameterGroup],
    n_samples: int,
    seed: int,
    most_batches: int | None = None,
) -> pd.DataFrame:
    """Baseline metrics of several models on the same sampled transformations.

    Args:
        names: see :data:`captum_lie.metrics.METRIC_NAMES`.
        most_batches: use at most so many batches.
    """
    images = batches if most_batches is None else list(islice(batches, most_batches))
    parts = []
    for name, model in models.items():
        found = metrics.measure(
            model, images, names, groups=list(groups), n_samples=n_samples, seed=seed,
            show_progress=True,
        )  # fmt: skip
        parts.append(found.to_dataframe().assign(model=name))
    table = pd.concat(parts, ignore_index=True)
    return table[["model", *(c for c in table.columns if c != "model")]]
