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

#: Differences of rates are absolute, of everything else relative to the reference's value.
_RATES = ("consistency", "changed_by_shift", "changed_by_rotation")
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
    for mine, other in _pairs(candidate, reference):
        row, found = _compare_one(mine, other, thresholds)
        rows.append(row)
        checks += found
    return pd.DataFrame(rows), checks


def parity_checks(found: Parity, thresholds: Mapping[str, float]) -> list[Check]:
    """Verdicts on the scores themselves."""
    return [
        *check(
            thresholds,
            "parity.max_relative",
            found.max_relative,
            detail=f"scores differ by at most {found.max_absolute:.3g}, "
            f"{found.mean_absolute:.3g} on average",
        ),
        *check(thresholds, "parity.top1_agreement", found.top1_agreement,
               detail="share of images with the same first class"),
        *check(thresholds, "parity.top5_agreement", found.top5_agreement,
               detail="mean share of the first classes in common"),
    ]  # fmt: skip


def _pairs(
    candidate: Behaviour, reference: Behaviour | None
) -> list[tuple[MetricResult, MetricResult | None]]:
    pairs: list[tuple[MetricResult, MetricResult | None]] = []
    for name in ("metrics", "lee", "curves"):
        mine: MetricTable = getattr(candidate, name)
        if reference is None:
            pairs += [(result, None) for result in mine]
            continue
        others = {(r.metric, r.variant): r for r in getattr(reference, name)}
        missing = [r for r in mine if (r.metric, r.variant) not in others]
        if missing:
            raise InvalidValueError(
                f"{reference.name} was not measured for {missing[0].metric}:{missing[0].variant}: "
                "audit both with the same metrics and groups."
            )
        pairs += [(result, others[result.metric, result.variant]) for result in mine]
    return pairs


def _compare_one(
    mine: MetricResult, other: MetricResult | None, thresholds: Mapping[str, float]
) -> tuple[dict[str, Any], list[Check]]:
    row: dict[str, Any] = {
        "metric": mine.metric,
        "variant": mine.variant,
        "candidate": mine.value,
        "stderr": mine.stderr,
        "method": mine.parameters.get("method", "sampled"),
        "n": mine.n,
    }
    checks = check(
        thresholds,
        f"value.{mine.metric}",
        mine.value,
        variant=mine.variant,
        detail=f"{mine.value:.4g} ± {mine.stderr:.2g}",
        error_bar=mine.error_bar or 0.0,
    )
    if other is None:
        return row, checks
    difference = paired_difference(mine, other)
    scale = 1.0 if mine.metric in _RATES else max(abs(other.value), _FLOOR)
    low, high = difference.confidence_interval
    bar = difference.error_bar or 0.0
    row |= {
        "reference": other.value,
        "difference": difference.value,
        "ci_low": low,
        "ci_high": high,
        "relative": difference.value / scale,
        "error_bar": bar,
    }
    checks += check(
        thresholds,
        f"difference.{mine.metric}",
        abs(difference.value) / scale,
        variant=mine.variant,
        detail=f"{mine.value:.4g} against {other.value:.4g}, difference {difference.value:.2g} "
        f"[{low:.2g}, {high:.2g}]" + (f", method's error ≤ {bar:.1g}" if bar else ""),
        error_bar=bar / scale,
    )
    return row, checks
