"""LEE of a set of images: per image and group, beside its control."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from captum_lie.errors import InvalidValueError


@dataclass(frozen=True, eq=False)
class LeeResult:
    """LEE of N images under G groups, in double precision.

    Attributes:
        groups: names.
        lee: ``‖L f‖² / dim`` of each image, ``[N, G]``.
        control: the same along tangents of scrambled phase, ``[N, G]``, if it was measured.
        control_stderr: standard error of each control value by its own probes, ``[N, G]``; zero
            where it is exact.
        grams: Gram matrix over aff(2) of each image, ``[N, 6, 6]``, if it was asked for.

    Example:
        >>> found = LeeResult(("rotation",), torch.tensor([[1.0], [3.0]]).double(),
        ...     control=torch.tensor([[4.0], [4.0]]).double())
        >>> found.to_dataframe().round(3).to_dict("records")
        [{'group': 'rotation', 'lee': 2.0, 'stderr': 1.0, 'relative_lee': 0.5, \
'relative_stderr': 0.25, 'n': 2}]
    """

    groups: tuple[str, ...]
    lee: Tensor
    control: Tensor | None = None
    control_stderr: Tensor | None = None
    grams: Tensor | None = None

    def __len__(self) -> int:
        """Number of images."""
        return len(self.lee)

    @property
    def gram(self) -> Tensor | None:
        """Gram matrix over aff(2), mean over the images, ``[6, 6]``, if it was asked for."""
        return None if self.grams is None else self.grams.mean(0)

    @property
    def mean(self) -> Tensor:
        """LEE, mean over the images, ``[G]``."""
        return self.lee.mean(0)

    @property
    def stderr(self) -> Tensor:
        """Standard error of the mean over images, ``[G]``; NaN for a single image."""
        return _stderr(self.lee)

    @property
    def relative(self) -> Tensor:
        """LEE over its control, a ratio of means, ``[G]``; NaN where that is zero or missing."""
        if self.control is None:
            return torch.full_like(self.mean, torch.nan)
        control = self.control.mean(0)
        return (self.mean / control).masked_fill(control == 0, torch.nan)

    @property
    def relative_stderr(self) -> Tensor:
        """Standard error of that ratio, ``[G]``, by the delta method.

        The residuals ``lee - ratio · control`` of the images carry everything that varies between
        them, the probes' own error included, which is independent from image to image.
        """
        if self.control is None:
            return torch.full_like(self.mean, torch.nan)
        residuals = self.lee - self.relative * self.control
        return _stderr(residuals) / self.control.mean(0)

    @property
    def control_error(self) -> Tensor:
        """Relative standard error of the mean control by probing alone, ``[G]``; 0 if exact."""
        if self.control is None or self.control_stderr is None:
            return torch.zeros_like(self.mean)
        return self.control_stderr.square().sum(0).sqrt() / self.control.sum(0)

    def to_dataframe(self) -> pd.DataFrame:
        """A row per group: group, lee, stderr, relative_lee, relative_stderr, n."""
        return pd.DataFrame(
            {
                "group": list(self.groups),
                "lee": self.mean.numpy(),
                "stderr": self.stderr.numpy(),
                "relative_lee": self.relative.numpy(),
                "relative_stderr": self.relative_stderr.numpy(),
                "n": len(self),
            }
        )

    @staticmethod
    def concatenate(parts: Sequence[LeeResult]) -> LeeResult:
        """The images of several results, in order, as one.

        Raises:
            ValueError: nothing to concatenate, or results of different groups, or some with a
                control or Gram matrices and some without.
        """
        if not parts:
            raise InvalidValueError("No result to concatenate.")
        if any(p.groups != parts[0].groups for p in parts):
            raise InvalidValueError("Results of different groups cannot be put together.")
        return LeeResult(
            parts[0].groups,
            torch.cat([p.lee for p in parts]),
            _joined("control", [p.control for p in parts]),
            _joined("standard error of the control", [p.control_stderr for p in parts]),
            _joined("Gram matrix", [p.grams for p in parts]),
        )


def _joined(what: str, parts: Sequence[Tensor | None]) -> Tensor | None:
    present = [p for p in parts if p is not None]
    if present and len(present) < len(parts):
        raise InvalidValueError(
            f"Only {len(present)} of {len(parts)} results have a {what}: measure all of them alike."
        )
    return torch.cat(present) if present else None


def _stderr(values: Tensor) -> Tensor:
    n = len(values)
    return values.std(0) / n**0.5 if n > 1 else torch.full_like(values[0], torch.nan)
