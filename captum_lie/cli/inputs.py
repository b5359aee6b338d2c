"""What commands are given: models, images, groups and devices from their options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from captum_lie.cli.options import BorderName, InterpolationName
from captum_lie.core.groups import OneParameterGroup, get_groups
from captum_lie.core.validation import one_of
from captum_lie.errors import InvalidValueError, first_line
from captum_lie.metrics import METRIC_NAMES
from captum_lie.studies.candidates import Candidate
from captum_lie.studies.distributed import local_device
from captum_lie.studies.specs import candidates_from, parse_specs

#: Of ``--size``: an image that large takes 3 GB.
LARGEST_SIDE = 2**14


def names_in(text: str) -> list[str]:
    """Names with commas between.

    Example:
        >>> names_in("rotation, scale,")
        ['rotation', 'scale']
    """
    return [name.strip() for name in text.split(",") if name.strip()]


def parse_groups(
    names: str, interpolation: InterpolationName, border: BorderName | None
) -> list[OneParameterGroup]:
    """Groups from names with commas between.

    Raises:
        ValueError: an unknown name, or none at all.

    Example:
        >>> [g.name for g in parse_groups("rotation, scale", InterpolationName.central, None)]
        ['rotation', 'scale']
    """
    return get_groups(
        "all" if names == "all" else names_in(names),
        interpolation=interpolation.value,
        border=border.value if border else None,
    )


def parse_metrics(names: str) -> list[str]:
    """Baseline metrics from names with commas between; ``lee`` is measured anyway.

    Raises:
        ValueError: an unknown name.

    Example:
        >>> parse_metrics("lee,eq_t")
        ['eq_t']
    """
    found = names_in(names)
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
) -> list[Candidate]:
    """The models that options name, see :func:`captum_lie.studies.specs.candidates_from`.

    Args:
        texts: ``[LABEL=]NAME[@CHECKPOINT]``, each.
        checkpoint: for a single model without one.
        mean, std: as :func:`parse_normalisation` takes them.
        control: also the untrained twin of each.

    Raises:
        ValueError: no such model.

    Example:
        >>> [candidate.name for candidate in find_models(["small=cnn"], control=True)]
        ['small', 'small (untrained)']
    """
    return candidates_from(
        parse_specs(texts, checkpoint),
        pretrained=pretrained,
        normalisation=parse_normalisation(mean, std),
        control=control,
    )


def parse_size(size: str | None) -> tuple[int, int] | None:
    """``HxW``, or one number for both.

    Raises:
        ValueError: anything else, or more than 16384 pixels a side.

    Example:
        >>> parse_size("224x192"), parse_size("32")
        ((224, 192), (32, 32))
    """
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
    """Mean and standard deviation of each channel, if either is given.

    Raises:
        ValueError: not numbers with commas between.

    Example:
        >>> parse_normalisation("0.5,0.4,0.3", None)
        ([0.5, 0.4, 0.3], [1.0])
    """
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
    """The device asked for, or a GPU if there is one; under torchrun that of the local rank.

    Raises:
        ValueError: it cannot be used.

    Example:
        >>> choose_device("cpu")
        device(type='cpu')
    """
    try:
        found = torch.device(device or local_device())
        torch.empty(1, device=found).cpu()  # a meta tensor has no values
    except (RuntimeError, AssertionError) as error:
        reason = first_line(error).split(". ")[0]
        raise InvalidValueError(f"Device {device!r} cannot be used: {reason}") from error
    return found
