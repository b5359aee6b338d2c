"""What a sweep computes on."""

from __future__ import annotations

import torch

from captum_lie.errors import InvalidValueError, first_line


def every_device() -> tuple[str, ...]:
    """Every GPU, or else the CPU."""
    return tuple(f"cuda:{i}" for i in range(torch.cuda.device_count())) or ("cpu",)


def check_device(name: str) -> None:
    """Tell a device that is not here from one that is, without taking any of its memory.

    Raises:
        ValueError: it is not.

    Example:
        >>> check_device("cpu")
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InvalidValueError(f"{name!r} is no device: {first_line(error)}") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        here = ", ".join(dict.fromkeys(("cpu", *every_device())))
        raise InvalidValueError(f"There is no device {name!r} here: choose among {here}.")
