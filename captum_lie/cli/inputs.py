"""What commands are given: models, images, groups and devices from their options."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from captum_lie import examples
from captum_lie.cli.options import BorderName, InterpolationName
from captum_lie.cli.specs import parse_specs
from captum_lie.core.groups import OneParameterGroup, get_groups
from captum_lie.core.loaders import images_of
from captum_lie.core.validation import one_of
from captum_lie.errors import InvalidValueError, first_line
from captum_lie.images import (
    Batches,
    ImageSource,
    ImageStack,
    View,
    match_labels,
    open_images,
    view_of,
)
from captum_lie.images.preprocessing import Normalized
from captum_lie.metrics import METRIC_NAMES
from captum_lie.studies.measurement import UNTRAINED, Subject
from captum_lie.studies.models import check_runs, has_untrained_twin, load_model

#: Of ``--size``: an image that large takes 3 GB.
LARGEST_SIDE = 2**14


def parse_groups(
    names: str, interpolation: InterpolationName, border: BorderName | None
) -> list[OneParameterGroup]:
    """Groups from names with commas between."""
    return get_groups(
        "all" if names == "all" else [g.strip() for g in names.split(",") if g.strip()],
        interpolation=interpolation.value,
        border=border.value if border else None,
    )


def parse_metrics(names: str) -> list[str]:
    """Baseline metrics from names with commas between; ``lee`` is measured anyway.

    Raises:
        ValueError: an unknown name.
    """
    found = [name.strip() for name in names.split(",") if name.strip()]
    for name in found:
        one_of("metric", name, ("lee", *METRIC_NAMES))
    return [name for name in found if name != "lee"]


def find_models(
    texts: Sequence[str],
    *,
    pretrained: bool = True,
    checkpoint: Path | None = None,
    mean: str | None = None,
    std: str | None = None,
    control: bool = False,
) -> dict[str, nn.Module]:
    """Models by label, each followed by its untrained twin if ``control`` and there is one.

    Args:
        texts: each ``[LABEL=]NAME[@CHECKPOINT]``, see :mod:`captum_lie.cli.specs`.
        checkpoint: for the only one.
        mean, std: normalisation of all of them.
    """
    normalisation = parse_normalisation(mean, std)

    def load(name: str, trained: bool, weights: Path | None) -> nn.Module:
        found = load_model(name, pretrained=trained, checkpoint=weights)
        provenance = getattr(found, "provenance", None)
        if normalisation:
            view, classes = view_of(found), getattr(found, "classes", None)
            found = Normalized(found, *normalisation, view=view, classes=classes).eval()
        return _called(found, f"{name}: {provenance}" if provenance else name)

    models: dict[str, nn.Module] = {}
    for spec in parse_specs(texts, checkpoint):
        models[spec.label] = load(spec.name, pretrained, spec.checkpoint)
        if control and pretrained and has_untrained_twin(spec.name):
            models[spec.label + UNTRAINED] = load(spec.name, False, None)
    return models


def _called(model: nn.Module, what: str) -> nn.Module:
    """The model, which says what it is in reports."""
    setattr(model, "provenance", what)  # noqa: B010 (a module's attributes are typed as modules)
    return model


def prepare(
    models: Mapping[str, nn.Module],
    source: ImageSource,
    *,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    batch_size: int = 16,
) -> tuple[dict[str, Batches], dict[str, Subject]]:
    """The images as each model sees them, and what reports say of each model.

    Runs each model once on its first batch: a misfit shows here, before the work begins.

    Args:
        models: on the device that they will run on.
        size: ``(height, width)`` for all, instead of what each expects.
        channels: for all, instead of what each expects.
    """
    batches: dict[str, Batches] = {}
    subjects: dict[str, Subject] = {}
    for label, model in models.items():
        view = view_of(model)
        if size is not None:
            view = View(size, channels=view.channels)
        if channels is not None:
            view = replace(view, channels=channels)
        same = label.removesuffix(UNTRAINED)
        if label != same and same in batches and batches[same].view == view:
            check_runs(label, model, first_images(batches[same]))
            batches[label] = batches[same]
            subjects[label] = replace(subjects[same], what=_what(model))
            continue
        found = Batches(source, view, batch_size)
        first = first_images(found)
        output = check_runs(label, model, first)
        shown = f"{first.shape[1]}x{first.shape[2]}x{first.shape[3]}"
        labels = "none"
        if source.labels is not None and output.ndim == 2:
            found.labels, labels = match_labels(
                source.labels,
                output.shape[1],
                names=source.classes,
                classes=getattr(model, "classes", None),
            )
        batches[label] = found
        subjects[label] = Subject(_what(model), shown, view.describe(), labels)
    return batches, subjects


def _what(model: nn.Module) -> str:
    return str(getattr(model, "provenance", None) or type(model).__name__)


def first_images(batches: Iterable[Any]) -> Tensor:
    """The images of the first batch."""
    return images_of(next(iter(batches)))


def find_images(images: str, limit: int | None) -> ImageSource:
    """The images that an option names: the embedded ones, or any of :func:`open_images`."""
    if images != "builtin":
        return open_images(images, limit)
    found, labels = examples.load_images(limit)
    return ImageStack(found, labels.tolist(), examples.CLASSES)


def resized(images: Tensor, size: tuple[int, int] | None) -> Tensor:
    """Images at another size, by bicubic interpolation within [0, 1]."""
    if size is None or size == tuple(images.shape[-2:]):
        return images
    return nn.functional.interpolate(images, size, mode="bicubic", antialias=True).clamp(0, 1)


def parse_size(size: str | None) -> tuple[int, int] | None:
    """``HxW``, or one number for both."""
    if size is None:
        return None
    parts = size.lower().split("x")
    if not all(p.isdigit() and int(p) > 0 for p in parts) or len(parts) > 2:
        raise InvalidValueError(f"--size takes HxW such as 224x224, or one number; got {size!r}.")
    height, width = int(parts[0]), int(parts[-1])
    if max(height, width) > LARGEST_SIDE:
        raise InvalidValueError(f"--size goes up to {LARGEST_SIDE} pixels a side; got {size!r}.")
    return height, width


def parse_normalisation(
    mean: str | None, std: str | None
) -> tuple[list[float], list[float]] | None:
    """Mean and standard deviation of each channel, if either is given."""
    if mean is None and std is None:
        return None
    try:
        return (
            [float(v) for v in (mean or "0").split(",")],
            [float(v) for v in (std or "1").split(",")],
        )
    except ValueError as error:
        raise InvalidValueError(
            f"--mean and --std take numbers with commas between; got {mean!r} and {std!r}."
        ) from error


def choose_device(device: str | None) -> torch.device:
    """The device asked for, or a GPU if there is one."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(1, device=found).cpu()  # a meta tensor has no values
    except (RuntimeError, AssertionError) as error:
        reason = first_line(error).split(". ")[0]
        raise InvalidValueError(f"Device {device!r} cannot be used: {reason}") from error
    return found
