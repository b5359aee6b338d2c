"""The record of a measurement: means, errors, and parts put together."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from captum_lie.results import LeeResult


def result(n: int, seed: int = 0) -> LeeResult:
    generator = torch.Generator().manual_seed(seed)
    lee, control = torch.rand(2, n, 3, generator=generator, dtype=torch.float64) + 0.1
    grams = torch.rand(n, 6, 6, generator=generator, dtype=torch.float64)
    return LeeResult(("a", "b", "c"), lee, control, 0.1 * control, grams)


def test_the_ratios_error_covers_the_truth() -> None:
    """Over many sets of images it lies within two standard errors 95 % of the time."""
    generator = torch.Generator().manual_seed(1)

    def draw(n: int) -> tuple[Tensor, Tensor]:
        control = torch.rand(n, 1, generator=generator, dtype=torch.float64) + 0.5
        noise = torch.rand(n, 1, generator=generator, dtype=torch.float64)
        return control * noise, control * (0.8 + 0.4 * torch.rand(n, 1, generator=generator))

    inside, errors, ratios = 0, [], []
    for _ in range(500):
        lee, control = draw(40)
        found = LeeResult(("g",), lee, control)
        ratio, error = found.relative.item(), found.relative_stderr.item()
        inside += abs(ratio - 0.5) < 2 * error
        errors.append(error)
        ratios.append(ratio)
    assert 0.91 < inside / 500 < 0.98
    spread = torch.tensor(ratios).std().item()
    assert sum(errors) / 500 == pytest.approx(spread, rel=0.1)


def test_the_controls_own_error() -> None:
    found = result(8)
    assert found.control is not None
    expected = (0.1 * found.control).square().sum(0).sqrt() / found.control.sum(0)
    torch.testing.assert_close(found.control_error, expected)
    assert not LeeResult(found.groups, found.lee, found.control).control_error.any()


def test_parts_make_the_whole() -> None:
    parts = [result(3, 1), result(1, 2), result(4, 3)]
    whole = LeeResult.concatenate(parts)
    assert len(whole) == 8
    torch.testing.assert_close(whole.mean * 8, sum(p.lee.sum(0) for p in parts))
    grams = [len(p) * p.gram for p in parts if p.gram is not None]
    torch.testing.assert_close(whole.gram, torch.stack(grams).sum(0) / 8)
    assert whole.to_dataframe()["n"].tolist() == [8, 8, 8]
    with pytest.raises(ValueError, match="No result"):
        LeeResult.concatenate([])
    with pytest.raises(ValueError, match="different groups"):
        LeeResult.concatenate([result(1), LeeResult(("a",), torch.ones(1, 1))])


def test_parts_that_were_measured_differently_make_no_whole() -> None:
    """One image with a control would else stand for all."""
    whole = result(1)
    for lacking, what in (
        (replace(whole, control=None, control_stderr=None), "1 of 2 results have a control"),
        (replace(whole, grams=None), "Gram matrix"),
    ):
        with pytest.raises(ValueError, match=what):
            LeeResult.concatenate([whole, lacking])


def test_without_a_control_nothing_is_relative() -> None:
    found = LeeResult(("a",), torch.ones(2, 1).double())
    assert found.relative.isnan().all()
    assert found.relative_stderr.isnan().all()
    table = found.to_dataframe()
    assert math.isnan(table["relative_lee"][0])
    assert table["stderr"][0] == 0


def test_one_image_has_no_error() -> None:
    found = LeeResult(("a",), torch.ones(1, 1).double(), torch.ones(1, 1).double())
    assert found.stderr.isnan().all()
    assert found.relative_stderr.isnan().all()
    assert found.relative.item() == 1
