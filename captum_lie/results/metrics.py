"""What every metric returns: a number, how sure it is, and what it takes to compare it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from captum_lie.errors import InvalidValueError

Array = NDArray[Any]

_Z = 1.959963984540054  # two-sided 95 %


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
        return MetricTable([self]).to_dataframe()


class MetricTable(Sequence[MetricResult]):
    """Several results, in order; also reached by variant or metric name.

    Example:
        >>> import torch
        >>> from captum_lie.metrics import discrete_group_error
        >>> table = discrete_group_error(lambda x: x.flatten(1), torch.rand(3, 1, 2, 2))
        >>> table["rot180"].n
        3
    """

    def __init__(self, results: Sequence[MetricResult]) -> None:
        self._results = tuple(results)

    def __len__(self) -> int:
        return len(self._results)

    def __iter__(self) -> Iterator[MetricResult]:
        return iter(self._results)

    @overload
    def __getitem__(self, key: int | str) -> MetricResult: ...
    @overload
    def __getitem__(self, key: slice) -> MetricTable: ...
    def __getitem__(self, key: int | str | slice) -> MetricResult | MetricTable:
        if isinstance(key, slice):
            return MetricTable(self._results[key])
        if isinstance(key, int):
            return self._results[key]
        found = [r for r in self if key in (r.variant, r.metric, f"{r.metric}:{r.variant}")]
        if len(found) != 1:
            names = ", ".join(f"{r.metric}:{r.variant}" for r in self)
            raise KeyError(
                f"{key!r} names {len(found)} results, not one; choose from {names} "
                "(metric:variant), or use an integer index."
            )
        return found[0]

    def __repr__(self) -> str:
        rows = (f"{r.metric}:{r.variant}={r.value:.4g}±{r.stderr:.2g}" for r in self)
        return f"MetricTable({', '.join(rows)})"

    def to_dataframe(self) -> pd.DataFrame:
        """A row per result: the summary, then ``error_bar``, then every scalar parameter."""
        return pd.DataFrame([_row(r) for r in self])

    def to_json(self) -> str:
        """A JSON list of :meth:`MetricResult.to_dict`."""
        return json.dumps([r.to_dict() for r in self], allow_nan=False)

    @staticmethod
    def concatenate(parts: Sequence[MetricTable]) -> MetricTable:
        """The same metrics of consecutive examples as one.

        Raises:
            ValueError: other metrics, units or parameters from part to part.
        """
        return MetricTable([concatenate(list(results)) for results in zip(*parts, strict=True)])

    @staticmethod
    def from_json(text: str) -> MetricTable:
        """The inverse of :meth:`to_json`."""
        return MetricTable([MetricResult.from_dict(content) for content in json.loads(text)])


def summarise(
    metric: str,
    per_example: Array,
    *,
    unit: str,
    border: str,
    variant: str = "",
    rate: bool = False,
    index: Array | None = None,
    parameters: Mapping[str, Any] | None = None,
    transformations: Mapping[str, Array] | None = None,
    numerical_error: Array | None = None,
) -> MetricResult:
    """Mean, standard error and 95 % interval over examples, which are taken to be independent.

    Example:
        >>> result = summarise("drift", np.array([1.0, 3.0]), unit="pixels", border="reflect")
        >>> result.value, result.stderr
        (2.0, 1.0)
    """
    n = len(per_example)
    value = float(per_example.mean()) if n else float("nan")
    stderr = float(per_example.std(ddof=1) / n**0.5) if n > 1 else float("nan")
    return MetricResult(
        metric=metric,
        variant=variant,
        value=value,
        stderr=stderr,
        confidence_interval=_wilson(value, stderr, n)
        if rate
        else (value - _Z * stderr, value + _Z * stderr),
        n=n,
        unit=unit,
        border=border,
        parameters=dict(parameters or {}),
        per_example=per_example,
        index=np.arange(n) if index is None else index,
        rate=rate,
        transformations=dict(transformations or {}),
        numerical_error=numerical_error,
    )


def concatenate(parts: Sequence[MetricResult]) -> MetricResult:
    """One metric of consecutive examples as one result.

    Raises:
        ValueError: results of different metrics, units or parameters.
    """
    first = parts[0]
    same = [(p.metric, p.variant, p.unit, p.border, dict(p.parameters)) for p in parts]
    if any(other != same[0] for other in same):
        raise InvalidValueError(
            f"Results of {first.metric}:{first.variant} with different settings cannot be put "
            "together: measure all parts with the same options."
        )
    errors = [p.numerical_error for p in parts if p.numerical_error is not None]
    return summarise(
        first.metric,
        np.concatenate([p.per_example for p in parts]),
        unit=first.unit,
        border=first.border,
        variant=first.variant,
        rate=first.rate,
        index=np.concatenate([p.index for p in parts]),
        parameters=first.parameters,
        transformations={
            name: np.concatenate([p.transformations[name] for p in parts])
            for name in first.transformations
        },
        numerical_error=np.concatenate(errors) if errors else None,
    )


def paired_difference(first: MetricResult, second: MetricResult) -> MetricResult:
    """``first − second`` on the same examples and transformations, say of two backends.

    The standard error is that of the paired difference, far below that of either result where the
    two backends agree.

    Raises:
        ValueError: not the same metric, examples and transformations.

    Example:
        >>> import torch
        >>> from captum_lie.metrics import eq_t
        >>> x = torch.rand(4, 1, 8, 8)
        >>> f, g = (lambda x: x.mean((2, 3)), lambda x: 2 * x.mean((2, 3)))
        >>> paired_difference(eq_t(g, x, output_fn=None), eq_t(f, x, output_fn=None)).value > 0
        True
    """
    same = (
        (first.metric, first.variant, first.unit, first.border)
        == (second.metric, second.variant, second.unit, second.border)
        and np.array_equal(first.index, second.index)
        and first.transformations.keys() == second.transformations.keys()
        and all(
            np.array_equal(values, second.transformations[name], equal_nan=True)
            for name, values in first.transformations.items()
        )
    )
    if not same:
        raise InvalidValueError(
            "A paired difference needs the same metric on the same examples and transformations; "
            f"got {first.metric}:{first.variant} (border {first.border}, n = {first.n}) and "
            f"{second.metric}:{second.variant} (border {second.border}, n = {second.n}). "
            "Measure both with the same images, options and seed."
        )
    errors = (first.numerical_error, second.numerical_error)
    return summarise(
        f"{first.metric}_difference",
        first.per_example - second.per_example,
        variant=first.variant,
        unit=first.unit,
        border=first.border,
        index=first.index,
        parameters={k: v for k, v in first.parameters.items() if k != "data_range"},
        transformations=first.transformations,
        numerical_error=None if errors[0] is None or errors[1] is None else errors[0] + errors[1],
    )


def _wilson(value: float, stderr: float, n: int) -> tuple[float, float]:
    """Wilson's interval; repeated samples of one example count through the design effect."""
    if not n:
        return float("nan"), float("nan")
    size = value * (1 - value) / stderr**2 if stderr > 0 else n
    centre = (value + _Z**2 / (2 * size)) / (1 + _Z**2 / size)
    half = _Z / (1 + _Z**2 / size) * (value * (1 - value) / size + _Z**2 / (4 * size**2)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)


def _row(result: MetricResult) -> dict[str, Any]:
    low, high = result.confidence_interval
    scalars = {k: v for k, v in result.parameters.items() if isinstance(v, str | float | int)}
    return {
        "metric": result.metric,
        "variant": result.variant,
        "value": result.value,
        "stderr": result.stderr,
        "ci_low": low,
        "ci_high": high,
        "n": result.n,
        "unit": result.unit,
        "psnr": np.nan if result.psnr is None else result.psnr,
        "border": result.border,
        "error_bar": np.nan if result.error_bar is None else result.error_bar,
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
