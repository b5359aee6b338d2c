"""Two behaviours side by side: paired differences, and which of them are too large."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from captum_lie.errors import InvalidValueError
from captum_lie.metrics import MetricResult, MetricTable, paired_difference
from captum_lie_onnx.behaviour import Behaviour
from captum_lie_onnx.parity import Parity
from captum_lie_onnx.thresholds import Check, check

#: Shares of answers. Their differences are absolute, all others relative to the reference's value.
RATES = ("consistency", "changed_by_shift", "changed_by_rotation")
#: Mean squares of probabilities below this are rounding.
_FLOOR = 1e-10


def compare(
    candidate: Behaviour, reference: Behaviour | None, thresholds: Mapping[str, float]
) -> tuple[pd.DataFrame, list[Check]]:
    """Every metric of the candidate beside the reference's, and the verdicts.

    Returns:
        A table with a row per metric and variant (columns ``metric, variant, candidate, stderr,
        reference, difference, ci_low, ci_high, relative, error_bar, method, n``; those of the
        reference are NaN without one), and the checks.

    Raises:
        ValueError: the two were not measured on the same images and transformations.
    """
    if reference is not None and reference.images_sha256 != candidate.images_sha256:
        raise InvalidValueError(
            f"{reference.name} was measured on other images than {candidate.name}: audit both on "
            "the same images, at the same size."
        )
    rows, checks = [], []
    for result, expected in _pairs(candidate, reference):
        row, own = _compare_one(result, expected, thresholds)
        rows.append(row)
        checks += own
    return pd.DataFrame(rows), checks


def parity_checks(parity: Parity, thresholds: Mapping[str, float]) -> list[Check]:
    """Verdicts on the scores themselves."""
    return [
        *check(
            thresholds,
            "parity.max_relative",
            parity.max_relative,
            detail=f"scores differ by at most {parity.max_absolute:.3g}, "
            f"{parity.mean_absolute:.3g} on average",
        ),
        *check(thresholds, "parity.top1_agreement", parity.top1_agreement,
               detail="share of images with the same first class"),
        *check(thresholds, "parity.top5_agreement", parity.top5_agreement,
               detail="mean share of the first classes in common"),
    ]  # fmt: skip


def _pairs(
    candidate: Behaviour, reference: Behaviour | None
) -> list[tuple[MetricResult, MetricResult | None]]:
    pairs: list[tuple[MetricResult, MetricResult | None]] = []
    for name in ("metrics", "lee", "curves"):
        results: MetricTable = getattr(candidate, name)
        if reference is None:
            pairs += [(result, None) for result in results]
            continue
        others = {(r.metric, r.variant): r for r in getattr(reference, name)}
        missing = [r for r in results if (r.metric, r.variant) not in others]
        if missing:
            raise InvalidValueError(
                f"{reference.name} was not measured for {missing[0].metric}:{missing[0].variant}: "
                "audit both with the same metrics and groups."
            )
        pairs += [(result, others[result.metric, result.variant]) for result in results]
    return pairs


def _compare_one(
    result: MetricResult, expected: MetricResult | None, thresholds: Mapping[str, float]
) -> tuple[dict[str, Any], list[Check]]:
    row: dict[str, Any] = {
        "metric": result.metric,
        "variant": result.variant,
        "candidate": result.value,
        "stderr": result.stderr,
        "method": result.parameters.get("method", "sampled"),
        "n": result.n,
    }
    checks = check(
        thresholds,
        f"value.{result.metric}",
        result.value,
        variant=result.variant,
        detail=f"{result.value:.4g} ± {result.stderr:.2g}",
        error_bar=result.error_bar or 0.0,
    )
    if expected is None:
        return row, checks
    difference = paired_difference(result, expected)
    scale = 1.0 if result.metric in RATES else max(abs(expected.value), _FLOOR)
    low, high = difference.confidence_interval
    bar = difference.error_bar or 0.0
    row |= {
        "reference": expected.value,
        "difference": difference.value,
        "ci_low": low,
        "ci_high": high,
        "relative": difference.value / scale,
        "error_bar": bar,
    }
    checks += check(
        thresholds,
        f"difference.{result.metric}",
        abs(difference.value) / scale,
        variant=result.variant,
        detail=f"{result.value:.4g} against {expected.value:.4g}, "
        f"difference {difference.value:.2g} [{low:.2g}, {high:.2g}]"
        + (f", method's error ≤ {bar:.1g}" if bar else ""),
        error_bar=bar / scale,
    )
    return row, checks
