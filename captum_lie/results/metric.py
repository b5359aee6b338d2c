"""What a metric returns: a number, how sure it is, and what it takes to compare it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True, eq=False, kw_only=True)
class MetricResult:
    """One measured number over N examples.

    Attributes:
        metric: its name, for example ``"eq_t"``.
        variant: what distinguishes it from its neighbours in a table: a group, a condition.
        value: mean over examples of ``per_example``.
        stderr: standard error of ``value`` over examples; NaN for a single example.
        confidence_interval: 95 %; Wilson's for rates, which stays honest at 0 and 1.
        n: number of examples.
        unit: of ``value``.
        border: what lies outside the image, the rule in force.
        parameters: everything else that determines the number.
        per_example: ``[N]``.
        index: position of each example in the data, ``[N]``.
        transformations: the sampled parameters by name, each ``[N, n_samples]``.
        numerical_error: bound on the error of each ``per_example`` value that the method itself
            makes (finite differences), ``[N]``; None where it makes none.
        rate: whether values are shares of yes among yes and no.

    Example:
        >>> import torch
        >>> from captum_lie.metrics import eq_t
        >>> result = eq_t(lambda x: x.mean((2, 3)), torch.rand(5, 3, 8, 8), output_fn=None)
        >>> result.n, result.unit, len(result.per_example)
        (5, 'mean square of the output', 5)
        >>> bool(abs(result.value - result.per_example.mean()) < 1e-12)
        True
        >>> MetricResult.from_dict(result.to_dict()).value == result.value
        True
    """

    metric: str
    variant: str = ""
    value: float
    stderr: float
    confidence_interval: tuple[float, float]
    n: int
    unit: str
    border: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    per_example: Array
    index: Array
    transformations: Mapping[str, Array] = field(default_factory=dict)
    numerical_error: Array | None = None
    rate: bool = False

    @property
    def psnr(self) -> float | None:
        """``10 log10(data_range² / value)`` in dB, infinite for no error; None if not an MSE."""
        data_range = self.parameters.get("data_range")
        if data_range is None:
            return None
        with np.errstate(divide="ignore"):
            return float(20 * np.log10(data_range) - 10 * np.log10(self.value))

    @property
    def error_bar(self) -> float | None:
        """Bound on the method's own error in ``value``; None where it makes none."""
        return None if self.numerical_error is None else float(self.numerical_error.mean())

    def to_dict(self) -> dict[str, Any]:
        """Plain types that JSON can hold; NaN becomes None, infinity a string."""
        plain: dict[str, Any] = _plain({**vars(self), "psnr": self.psnr})
        return plain

    @staticmethod
    def from_dict(content: Mapping[str, Any]) -> MetricResult:
        """The inverse of :meth:`to_dict`."""
        values = {k: v for k, v in content.items() if k != "psnr"}
        low, high = values["confidence_interval"]
        error = values["numerical_error"]
        return MetricResult(
            **values
            | {
                "value": _number(values["value"]),
                "stderr": _number(values["stderr"]),
                "confidence_interval": (_number(low), _number(high)),
                "per_example": np.array([_number(v) for v in values["per_example"]]),
                "index": np.array(values["index"], dtype=np.int64),
                "transformations": {k: np.array(v) for k, v in values["transformations"].items()},
                "numerical_error": None if error is None else np.array([_number(v) for v in error]),
            }
        )

    def to_json(self) -> str:
        """The result as strict JSON (no NaN or Infinity tokens)."""
        return json.dumps(self.to_dict(), allow_nan=False)

    def to_dataframe(self) -> pd.DataFrame:
        """One row; see :meth:`MetricTable.to_dataframe`."""
        return pd.DataFrame([self.row()])

    def row(self) -> dict[str, Any]:
        """The summary, ``error_bar``, and every scalar parameter."""
        low, high = self.confidence_interval
        scalars = {k: v for k, v in self.parameters.items() if isinstance(v, str | float | int)}
        return {
            "metric": self.metric,
            "variant": self.variant,
            "value": self.value,
            "stderr": self.stderr,
            "ci_low": low,
            "ci_high": high,
            "n": self.n,
            "unit": self.unit,
            "psnr": np.nan if self.psnr is None else self.psnr,
            "border": self.border,
            "error_bar": np.nan if self.error_bar is None else self.error_bar,
            **scalars,
        }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None if np.isnan(value) else str(value)
    return value


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
