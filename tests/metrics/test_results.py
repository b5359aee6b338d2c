"""Results: their intervals, and that nothing is lost on the way to JSON and DataFrame."""

from __future__ import annotations

import json
from math import inf, isnan

import numpy as np
import pytest
import torch

from captum_lie.metrics import MetricResult, MetricTable, eq_t, finite_difference_lee, measure
from captum_lie.results.metrics import summarise
from tests.toy_models import build, images


def some_table() -> MetricTable:
    return measure(
        build("vit"),
        images(3),
        groups="rotation",
        n_samples=3,
        options={
            "consistency": {"max_shift_pixels": 2},
            "discrete_group": {"elements": ["flip_x", "rot180"]},
            "eq_t": {"max_shift": 0.2},
        },
    )


def test_json_round_trip_keeps_everything() -> None:
    table = some_table()
    again = MetricTable.from_json(table.to_json())
    assert len(again) == len(table)
    for a, b in zip(table, again, strict=True):
        assert a.to_dict() == b.to_dict()
        assert (a.value, a.n, a.unit, a.border, a.psnr) == (b.value, b.n, b.unit, b.border, b.psnr)
        assert np.array_equal(a.per_example, b.per_example)
        assert a.confidence_interval == b.confidence_interval
        assert a.error_bar == b.error_bar
        for name, values in a.transformations.items():
            assert np.array_equal(values, b.transformations[name])
    pd_equal = table.to_dataframe().equals(again.to_dataframe())
    assert pd_equal


def test_json_is_strict_for_infinities_and_single_examples() -> None:
    result = eq_t(lambda x: x.amax((2, 3)), images(1), border="circular", max_shift=0.2)
    content = json.loads(
        result.to_json(), parse_constant=lambda token: pytest.fail(f"{token} is not JSON")
    )
    assert (content["psnr"], content["stderr"]) == ("inf", None)
    again = MetricResult.from_dict(content)
    assert again.psnr == inf
    assert isnan(again.stderr)
    assert all(map(isnan, again.confidence_interval))


def test_dataframe_has_a_row_per_result() -> None:
    table = some_table()
    frame = table.to_dataframe()
    assert len(frame) == len(table)
    summary = ["metric", "variant", "value", "stderr", "ci_low", "ci_high", "n", "unit"]
    assert list(frame.columns[:11]) == [*summary, "psnr", "border", "error_bar"]
    assert {"max_shift", "n_samples", "seed", "radius", "window"} <= set(frame.columns)
    assert frame["border"].notna().all()
    assert frame.loc[frame.metric == "lee_fd", "error_bar"].notna().all()
    assert frame.loc[frame.metric == "consistency", "psnr"].isna().all()
    assert len(table[0].to_dataframe()) == 1


def test_standard_error_is_that_of_the_mean_over_examples() -> None:
    values = np.array([1.0, 2.0, 4.0, 9.0])
    result = summarise("m", values, unit="u", border="b")
    assert result.value == 4.0
    assert result.stderr == pytest.approx(values.std(ddof=1) / 2)
    low, high = result.confidence_interval
    assert (high - low) / 2 == pytest.approx(1.96 * result.stderr, rel=1e-3)
    assert (low + high) / 2 == pytest.approx(4.0)


def test_intervals_of_rates_are_wilsons() -> None:
    # Brown, Cai and DasGupta (2001): no failure in n trials has the upper limit z²/(n + z²).
    none = summarise("m", np.zeros(20), unit="u", border="b", rate=True)
    assert none.confidence_interval == pytest.approx((0, 1.96**2 / (20 + 1.96**2)), rel=1e-3)
    half = summarise("m", np.array([0.0, 1.0] * 10), unit="u", border="b", rate=True)
    low, high = half.confidence_interval
    assert low == pytest.approx(0.299, abs=0.01)
    assert high == pytest.approx(0.701, abs=0.01)
    # Many samples an image narrow the interval, if they differ; the truth is covered 95 %.
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        rates = rng.binomial(10, 0.1, 50) / 10
        low, high = summarise("m", rates, unit="u", border="b", rate=True).confidence_interval
        hits += low <= 0.1 <= high
    assert 0.91 < hits / 400 < 0.99


def test_no_examples_give_no_number() -> None:
    empty = summarise("m", np.zeros(0), unit="u", border="b", rate=True)
    assert empty.n == 0
    assert isnan(empty.value)
    assert all(map(isnan, empty.confidence_interval))


def test_results_are_found_by_name() -> None:
    table = finite_difference_lee(build("vit"), images(1), ["rotation", "scale"])
    assert table["scale"] is table[1]
    assert table["lee_fd:rotation"] is table[0]
    assert [r.variant for r in table[:1]] == ["rotation"]
    with pytest.raises(KeyError, match="2 results"):
        table["lee_fd"]
    with pytest.raises(KeyError, match="lee_fd:scale"):
        table["shear_x"]
    assert "lee_fd:scale=" in repr(table)


def test_psnr_follows_the_data_range() -> None:
    x = images(2)
    one = eq_t(build("vit"), x, max_shift=0.2)
    two = eq_t(build("vit"), x, max_shift=0.2, data_range=2)
    assert one.psnr == pytest.approx(-10 * np.log10(one.value))
    assert two.psnr == pytest.approx(10 * np.log10(4 / one.value))


def test_half_precision_models_are_measured_to_within_their_rounding() -> None:
    """Outputs that are off by e change a mean square v of differences by 4 e √v + 4 e² at most."""
    half, x = build("mixer", (8, 8), torch.bfloat16), images(2, (8, 8), torch.bfloat16)
    rounded = build("mixer", (8, 8), torch.bfloat16).double()  # the same weights, computed exactly
    off = half(x).softmax(1).double() - rounded(x.double()).softmax(1)
    e = off.square().mean().sqrt().item()
    assert 0 < e < torch.finfo(torch.bfloat16).eps
    names = "eq_t,eq_t_frac,eq_r,group_sample,discrete_group"
    groups = ["translation_x", "translation_y", "rotation"]
    low, high = (
        measure(model, y, names, groups=groups, n_samples=3)
        for model, y in ((half, x), (rounded, x.double()))
    )
    assert len(low) == 3 + 3 + 5
    for a, b in zip(low, high, strict=True):
        bound = 4 * e * b.value**0.5 + 4 * e**2
        assert bound < 0.6 * b.value  # something is measured
        assert abs(a.value - b.value) < bound, (a.metric, a.variant)
