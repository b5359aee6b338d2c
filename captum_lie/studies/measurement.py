"""The main job: LEE of models over images, and maps of which pixels are to blame."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

import pandas as pd
import torch
from torch import Tensor, nn

from captum_lie import metrics
from captum_lie.attribution import LocalEquivarianceError
from captum_lie.core.gram import PrincipalDirections, principal_directions
from captum_lie.core.groups import OneParameterGroup, SpatialGroup
from captum_lie.core.loaders import images_of, to_model

UNTRAINED = " (untrained)"
COLUMNS = ["model", "group", "lee", "stderr", "relative_lee", "relative_stderr", "n"]


#: Batches ``[n, C, H, W]``, or pairs of them and class indices ``[n]``; read once a pass.
Batched = Iterable[Any]


@dataclass
class Picture:
    """Maps of one image: ``maps[model][group]`` is ``[C, H, W]`` and sums to the image's LEE.

    ``images[model]`` is the image as that model saw it, ``[C, H, W]`` in [0, 1].
    """

    images: dict[str, Tensor] = field(default_factory=dict)
    maps: dict[str, dict[str, Tensor]] = field(default_factory=dict)


@dataclass(frozen=True)
class Subject:
    """What a report says of a model beside its numbers.

    Attributes:
        what: its name in full, and where its weights come from.
        input: shape of the images that it saw.
        prepared: how they were made.
        labels: how labels were matched with its classes, or why not.
        accuracy, accuracy_stderr: share of the images that it classifies correctly, if known.
    """

    what: str
    input: str
    prepared: str
    labels: str = "none"
    accuracy: float | None = None
    accuracy_stderr: float | None = None


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
        subjects: what each model is and saw, by its name in the table.
    """

    table: pd.DataFrame
    directions: dict[str, PrincipalDirections]
    pictures: list[Picture]
    settings: dict[str, Any]
    metrics: pd.DataFrame | None = None
    subjects: dict[str, Subject] = field(default_factory=dict)


def measure(
    models: Mapping[str, nn.Module],
    batches: Batched | Mapping[str, Batched],
    groups: Sequence[OneParameterGroup],
    *,
    norm: Literal["l2", "l1"] = "l2",
    pictured: int | Tensor | Mapping[str, Tensor] = 3,
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
        batches: image batches ``[n, C, H, W]``, or pairs of them and labels; for all models, or for
            each by its name. Read once for each model.
        groups: what to measure.
        norm: see :class:`captum_lie.LocalEquivarianceError`.
        pictured: how many images to attribute, or these images themselves ``[n, C, H, W]``; for all
            models, or for each by its name.
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
        own = batches_of(batches, name)
        found = method.collect(
            own,
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
        chosen = pictured[name] if isinstance(pictured, Mapping) else pictured
        shown = first_examples(own, chosen) if isinstance(chosen, int) else list(chosen)
        if not pictures:
            pictures = [Picture() for _ in shown]
        for picture, image in zip(pictures, shown, strict=True):
            picture.images[name] = image
        if shown:
            images = to_model(model, torch.stack(shown))
            for group in groups:
                maps = method.attribute(
                    images, group=group, internal_batch_size=internal_batch_size
                )
                for picture, attribution in zip(pictures, maps.cpu(), strict=True):
                    picture.maps.setdefault(name, {})[group.name] = attribution
    return Measurement(pd.concat(tables, ignore_index=True), directions, pictures, settings or {})


def batches_of(batches: Batched | Mapping[str, Batched], name: str) -> Batched:
    """The batches of one model."""
    return batches[name] if isinstance(batches, Mapping) else batches


def first_examples(batches: Batched, n: int) -> list[Tensor]:
    """The first ``n`` images of a loader, each ``[C, H, W]``."""
    return list(islice((image for batch in batches for image in images_of(batch)), n))


def accuracy(model: nn.Module, batches: Batched) -> tuple[float, float | None] | None:
    """Share of labelled images that a model classifies correctly, with its standard error.

    None where batches carry no labels; a single image has no standard error.

    Example:
        >>> accuracy(nn.Flatten(), [(torch.eye(4).reshape(4, 1, 2, 2), torch.tensor([0, 1, 2, 2]))])
        (0.75, 0.25)
    """
    correct: list[Tensor] = []
    for batch in batches:
        if not isinstance(batch, list | tuple) or len(batch) < 2:
            return None
        with torch.no_grad():
            answers = model(to_model(model, images_of(batch))).argmax(1).cpu()
        correct.append(answers == batch[1].cpu())
    right = torch.cat(correct).double()
    stderr = right.std().item() / len(right) ** 0.5 if len(right) > 1 else None
    return right.mean().item(), stderr


def baseline_table(
    models: Mapping[str, nn.Module],
    batches: Batched | Mapping[str, Batched],
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
    parts = []
    for name, model in models.items():
        own = batches_of(batches, name)
        images = own if most_batches is None else list(islice(own, most_batches))
        found = metrics.measure(
            model, images, names, groups=list(groups), n_samples=n_samples, seed=seed,
            show_progress=True,
        )  # fmt: skip
        parts.append(found.to_dataframe().assign(model=name))
    table = pd.concat(parts, ignore_index=True)
    return table[["model", *(c for c in table.columns if c != "model")]]
