"""The images as each model sees them, tried before the work begins."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from captum_lie.core.loaders import images_of
from captum_lie.images import Batches, ImageSource, View, match_labels, view_of
from captum_lie.results import Subject
from captum_lie.studies.candidates import Candidate
from captum_lie.studies.models import check_runs


@dataclass(frozen=True)
class Demands:
    """How images are made for all models, instead of as each expects.

    Attributes:
        size: ``(height, width)``; None for each model's own.
        channels: None for each model's own.
        batch_size: images a batch.
    """

    size: tuple[int, int] | None = None
    channels: int | None = None
    batch_size: int = 16

    def view(self, model: nn.Module) -> View:
        """How a model is shown its images."""
        view = view_of(model)
        if self.size is not None:
            view = View(self.size, channels=view.channels)
        return view if self.channels is None else replace(view, channels=self.channels)


def prepare(
    candidates: Sequence[Candidate], source: ImageSource, demands: Demands | None = None
) -> tuple[dict[str, Batches], dict[str, Subject]]:
    """The images as each model sees them, and what reports say of each model.

    Runs each model once on its first batch: a misfit shows here, before the work begins.

    Args:
        candidates: on the device that they will run on.
        source: the images.
        demands: on all of them.

    Raises:
        ValueError: a model does not take its images, or no image can be read.
    """
    demands = demands or Demands()
    batches: dict[str, Batches] = {}
    subjects: dict[str, Subject] = {}
    for candidate in candidates:
        name, model = candidate.name, candidate.model
        view = demands.view(model)
        twin = candidate.control_of
        if twin in batches and batches[twin].view == view:
            check_runs(name, model, first_images(batches[twin]))
            batches[name] = batches[twin]
            subjects[name] = replace(subjects[twin], what=_what(model), weights=digest(model))
            continue
        own = Batches(source, view, demands.batch_size)
        first = first_images(own)
        output = check_runs(name, model, first)
        labels = "none"
        if source.labels is not None and output.ndim == 2:
            own.labels, labels = match_labels(
                source.labels,
                output.shape[1],
                names=source.classes,
                classes=getattr(model, "classes", None),
            )
        batches[name] = own
        shape = "x".join(map(str, first.shape[1:]))
        subjects[name] = Subject(_what(model), shape, view.describe(), labels, digest(model))
    return batches, subjects


def first_images(batches: Iterable[Any]) -> Tensor:
    """The images of the first batch."""
    return images_of(next(iter(batches)))


def digest(model: nn.Module) -> str:
    """Of a model's parameters and buffers: equal weights, equal digest.

    Example:
        >>> digest(nn.ReLU()) == digest(nn.Sigmoid()) != digest(nn.Linear(1, 1))
        True
    """
    found = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(-1).numpy().tobytes())
    return found.hexdigest()[:16]


def _what(model: nn.Module) -> str:
    return str(getattr(model, "provenance", None) or type(model).__name__)
