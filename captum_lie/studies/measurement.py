"""The main job: LEE of models over images, and maps of which pixels are to blame."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from captum_lie import metrics
from captum_lie.attribution import LocalEquivarianceError
from captum_lie.core.groups import OneParameterGroup, SpatialGroup
from captum_lie.core.loaders import device_of, images_of, to_model
from captum_lie.results import Environment, Measurement, MetricTable, ModelRecord
from captum_lie.studies.candidates import Candidate, Candidates, candidates_of

#: Batches ``[n, C, H, W]``, or pairs of them and class indices ``[n]``; read once a pass.
Batched = Iterable[Any]


@dataclass(frozen=True)
class Options:
    """How LEE is measured.

    Attributes:
        norm: see :class:`captum_lie.LocalEquivarianceError`.
        relative: also measure the control, for the relative LEE.
        n_probes, seed: of the control of models with more than 32 outputs.
        internal_batch_size: at most so many examples × tangents at a time.
        pictured: how many images to attribute, or these images themselves ``[n, C, H, W]``.
        first: position of the first image in the whole set, for a shard.
        show_progress: show a progress bar for each model.
    """

    norm: Literal["l2", "l1"] = "l2"
    relative: bool = True
    n_probes: int = 8
    seed: int = 0
    internal_batch_size: int | None = None
    pictured: int | Tensor = 3
    first: int = 0
    show_progress: bool = False


@dataclass(frozen=True)
class Baselines:
    """Which sampling-based metrics are measured beside LEE.

    Attributes:
        names: see :data:`captum_lie.metrics.METRIC_NAMES`.
        n_samples: transformations per image.
        most_batches: use at most so many batches.
    """

    names: Sequence[str] = ()
    n_samples: int = 10
    most_batches: int | None = None


def measure(
    models: Candidates,
    batches: Batched | Mapping[str, Batched],
    groups: Sequence[OneParameterGroup],
    options: Options | None = None,
    *,
    baselines: Baselines | None = None,
) -> Measurement:
    """Measure LEE of each model, attribute it for the first images, and measure baselines.

    Args:
        models: by name, or :class:`~captum_lie.studies.Candidate`; controls get no pictures and no
            baselines.
        batches: image batches ``[n, C, H, W]``, or pairs of them and labels; for all models, or for
            each by its name. Read once for each model.
        groups: what to measure.
        options: how; see :class:`Options`.
        baselines: also measure these.

    Example:
        >>> from captum_lie import get_groups
        >>> from captum_lie.examples import load_images, load_model
        >>> images, labels = load_images(4)
        >>> found = measure({"cnn": load_model("cnn")}, [(images, labels)], get_groups("rotation"))
        >>> found.table["group"].tolist(), found["cnn"].maps["rotation"].shape
        (['rotation'], torch.Size([3, 3, 32, 32]))
    """
    options = options or Options()
    candidates = candidates_of(models)
    records = []
    for candidate in candidates:
        own = batches_of(batches, candidate.name)
        record = measure_one(candidate, own, groups, options)
        if candidate.trained and baselines is not None and baselines.names:
            record = replace(record, metrics=_measured(candidate, own, groups, options, baselines))
        records.append(record)
    device = device_of(candidates[0].model) if candidates else None
    return Measurement(
        tuple(records), environment=Environment.here(device or "cpu"), first=options.first
    )


def measure_one(
    candidate: Candidate, batches: Batched, groups: Sequence[OneParameterGroup], options: Options
) -> ModelRecord:
    """What :func:`measure` gives of one model, without baselines."""
    method = LocalEquivarianceError(candidate.model, norm=options.norm)
    spatial = any(isinstance(g, SpatialGroup) for g in groups)
    seen = witness(candidate.model, batches)
    lee = method.collect(
        seen,
        groups,
        relative=options.relative,
        gram=candidate.trained and spatial and options.norm == "l2",
        n_probes=options.n_probes,
        seed=options.seed,
        internal_batch_size=options.internal_batch_size,
        first_index=options.first,
        show_progress=options.show_progress,
        description=candidate.name,
    )
    record = ModelRecord(
        candidate.name,
        candidate.role,
        candidate.control_of,
        lee=lee,
        correct=seen.correct,
        images=torch.cat(seen.digests),
    )
    return _attributed(record, candidate, batches, groups, options) if candidate.trained else record


def _attributed(
    record: ModelRecord,
    candidate: Candidate,
    batches: Batched,
    groups: Sequence[OneParameterGroup],
    options: Options,
) -> ModelRecord:
    chosen = options.pictured
    shown = first_examples(batches, chosen) if isinstance(chosen, int) else list(chosen)
    if not shown:
        return record
    method = LocalEquivarianceError(candidate.model, norm=options.norm)
    images = torch.stack(shown)
    on_device = to_model(candidate.model, images)
    size = options.internal_batch_size
    maps = {
        group.name: method.attribute(on_device, group=group, internal_batch_size=size).cpu()
        for group in groups
    }
    return replace(record, shown=images, maps=maps)


def _measured(
    candidate: Candidate,
    batches: Batched,
    groups: Sequence[OneParameterGroup],
    options: Options,
    baselines: Baselines,
) -> MetricTable:
    most = baselines.most_batches
    return metrics.measure(
        candidate.model,
        batches if most is None else list(islice(batches, most)),
        baselines.names,
        groups=list(groups),
        n_samples=baselines.n_samples,
        seed=options.seed,
        first_index=options.first,
        show_progress=options.show_progress,
    )


@dataclass
class Witness:
    """Batches on their way to a model, and what was seen in passing.

    Attributes:
        digests: of each batch's images, ``[n, 8]`` bytes.
        correct: whether the model classifies each labelled image correctly, ``[N]``; None
            without labels.
    """

    model: nn.Module
    batches: Batched
    digests: list[Tensor] = field(default_factory=list)
    answers: list[Tensor] = field(default_factory=list)

    def __iter__(self) -> Iterator[Any]:
        for batch in self.batches:
            images = images_of(batch)
            self.digests.append(digests(images))
            if isinstance(batch, list | tuple) and len(batch) > 1 and isinstance(batch[1], Tensor):
                with torch.no_grad():
                    scores = self.model(to_model(self.model, images))
                if scores.ndim == 2:
                    self.answers.append(scores.argmax(1).cpu() == batch[1].cpu())
            yield batch

    @property
    def correct(self) -> Tensor | None:
        return torch.cat(self.answers) if self.answers else None


class _SizedWitness(Witness):
    """That of batches whose number is known."""

    def __len__(self) -> int:
        return len(self.batches) if isinstance(self.batches, Sized) else 0


def witness(model: nn.Module, batches: Batched) -> Witness:
    """Batches that are witnessed, of known number if theirs is."""
    return (_SizedWitness if isinstance(batches, Sized) else Witness)(model, batches)


def digests(images: Tensor) -> Tensor:
    """A digest of each image, ``[n, 8]`` bytes.

    Example:
        >>> a, b = digests(torch.stack([torch.zeros(1, 2, 2), torch.ones(1, 2, 2)]))
        >>> bool((a == b).all())
        False
    """
    rows = [
        hashlib.sha256(image.detach().cpu().contiguous().numpy().tobytes()).digest()[:8]
        for image in images
    ]
    return torch.from_numpy(np.frombuffer(b"".join(rows), np.uint8).copy()).reshape(-1, 8)


def batches_of(batches: Batched | Mapping[str, Batched], name: str) -> Batched:
    """The batches of one model."""
    return batches[name] if isinstance(batches, Mapping) else batches


def first_examples(batches: Batched, n: int) -> list[Tensor]:
    """The first ``n`` images of a loader, each ``[C, H, W]``."""
    return list(islice((image for batch in batches for image in images_of(batch)), n))
