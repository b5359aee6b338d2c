"""Results from examples' values, of consecutive parts as one, and of two as a difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from captum_lie.errors import InvalidValueError
from captum_lie.results.metric import Array, MetricResult

if TYPE_CHECKING:
    from typing_extensions import Unpack

_Z = 1.959963984540054  # two-sided 95 %


class Record(TypedDict, total=False):
    """What a :class:`MetricResult` keeps beside its number."""

    index: Array
    parameters: Mapping[str, Any]
    transformations: Mapping[str, Array]
    numerical_error: Array | None


def summarise(
    metric: str,
    per_example: Array,
    *,
    unit: str,
    border: str,
    variant: str = "",
    rate: bool = False,
    **record: Unpack[Record],
) -> MetricResult:
    """Mean, standard error and 95 % interval over examples, which are taken to be independent.

    Example:
        >>> result = summarise("drift", np.array([1.0, 3.0]), unit="pixels", border="reflect")
        >>> result.value, result.stderr
        (2.0, 1.0)
    """
    n = len(per_example)
    index = record.get("index")
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
        parameters=dict(record.get("parameters", {})),
        per_example=per_example,
        index=np.arange(n) if index is None else index,
        rate=rate,
        transformations=dict(record.get("transformations", {})),
        numerical_error=record.get("numerical_error"),
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
