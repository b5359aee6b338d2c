"""Verdicts: presets, TOML files, settings, and what an error bar does to a line."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("onnxruntime")

from captum_lie_onnx.thresholds import EXPORT, QUANTIZED, check, resolve_thresholds


@pytest.mark.parametrize(
    ("value", "bar", "status"),
    [
        (0.5, 0.0, "pass"),
        (1.0, 0.0, "pass"),
        (1.5, 0.0, "fail"),
        (0.9, 0.2, "inconclusive"),
        (1.1, 0.2, "inconclusive"),
        (1.3, 0.2, "fail"),
        (0.7, 0.2, "pass"),
        (float("nan"), 0.0, "fail"),
    ],
)
def test_a_line_is_inconclusive_where_the_error_bar_spans_the_threshold(
    value: float, bar: float, status: str
) -> None:
    (line,) = check({"difference.lee": 1.0}, "difference.lee", value, error_bar=bar)
    assert line.status == status


@pytest.mark.parametrize(("value", "status"), [(0.98, "fail"), (0.99, "pass"), (1.0, "pass")])
def test_agreement_must_reach_its_threshold(value: float, status: str) -> None:
    (line,) = check({"parity.top1_agreement": 0.99}, "parity.top1_agreement", value)
    assert line.status == status


def test_no_line_without_a_threshold() -> None:
    assert check({}, "value.consistency", 0.5) == []


def test_settings_win_over_the_file_and_the_file_over_the_preset(tmp_path: Path) -> None:
    file = tmp_path / "limits.toml"
    file.write_text(
        "[parity]\nmax_relative = 0.5\ntop1_agreement = 0.5\n[value]\nconsistency = 0.2\n"
    )
    found = resolve_thresholds("quantized", file, ["parity.max_relative=0.25"])
    assert found["parity.max_relative"] == 0.25
    assert found["parity.top1_agreement"] == 0.5
    assert found["value.consistency"] == 0.2
    assert found["difference.lee"] == QUANTIZED["difference.lee"] != EXPORT["difference.lee"]


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("[parity]\nmax_relativ = 1\n", "max_relativ"),
        ("[parity\n", "TOML"),
        ("parity = 3\n", "tables"),
        ("[parity]\nmax_relative = 'much'\n", "number"),
        ("[parity]\nmax_relative = true\n", "number"),
        ("[parity]\nmax_relative = -1\n", "negative"),
        ("[parity]\nmax_relative = nan\n", "negative"),
    ],
)
def test_a_bad_file_is_explained(tmp_path: Path, content: str, word: str) -> None:
    file = tmp_path / "limits.toml"
    file.write_text(content)
    with pytest.raises(ValueError, match=word):
        resolve_thresholds(file=file)


def test_bad_settings_are_explained() -> None:
    with pytest.raises(ValueError, match="NAME=VALUE"):
        resolve_thresholds(settings=["parity.max_relative"])
    with pytest.raises(ValueError, match="no threshold 'speed'"):
        resolve_thresholds(settings=["speed=1"])
    with pytest.raises(ValueError, match="preset"):
        resolve_thresholds("strict")
