"""What all metrics share: which transformations an example gets, motions of any grid, options."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Any, cast
from zlib import crc32

import numpy as np
import pytest
import torch
from torch import Tensor

from captum_lie.attribution.collection import Collection, CollectionOptions
from captum_lie.layerwise.motions import Motions, MotionsOptions
from captum_lie.layouts import NCHW
from captum_lie.metrics import METRIC_NAMES, consistency, eq_t, integer_shift, measure
from captum_lie.metrics.comparison import Comparison, ComparisonOptions
from captum_lie.metrics.finite_difference import Differences, DifferencesOptions
from captum_lie.metrics.motions import FractionalShift, IntegerShift, Motion, Turn
from captum_lie.metrics.sampling import Sampling
from captum_lie.metrics.settings import (
    Batching,
    BatchingOptions,
    Evaluation,
    EvaluationOptions,
    SampledBatching,
    SampledBatchingOptions,
    SampledEvaluation,
    SampledEvaluationOptions,
)


def noise(n: int, *size: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(n, *size, generator=generator, dtype=torch.float64)


def corner(x: Tensor) -> Tensor:
    """Scores that know where things are."""
    return x[:, :, 2, 3] * 3


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        (Batching, BatchingOptions),
        (Evaluation, EvaluationOptions),
        (SampledBatching, SampledBatchingOptions),
        (SampledEvaluation, SampledEvaluationOptions),
        (Comparison, ComparisonOptions),
        (Differences, DifferencesOptions),
        (Motions, MotionsOptions),
        (Collection, CollectionOptions),
    ],
)
def test_keywords_are_the_fields_that_they_set(settings: Any, options: Any) -> None:
    typed = {field.name: field.type for field in fields(settings)}
    assert typed == {name: hint.__forward_arg__ for name, hint in options.__annotations__.items()}


def test_draws_belong_to_purpose_seed_and_place() -> None:
    place = np.arange(20, 26)
    draws = Sampling(4, seed=9).uniform("eq_t", place, 2)
    assert draws.shape == (6, 4, 2)
    for i, index in enumerate(place):
        own = np.random.default_rng([9, crc32(b"eq_t"), int(index)]).uniform(-1, 1, (4, 2))
        assert np.array_equal(draws[i], own)
    assert np.array_equal(Sampling(4, seed=9).uniform("eq_t", place[3:], 2), draws[3:])
    for other in (
        Sampling(4, seed=8).uniform("eq_t", place, 2),
        Sampling(4, seed=9).uniform("eq_r", place, 2),
        Sampling(4, seed=9).uniform("eq_t", place + 1, 2),
    ):
        assert not (other == draws).all((1, 2)).any()


def test_whole_numbers_reach_as_far_as_they_may_and_no_farther() -> None:
    counts = Sampling(200).whole("consistency", np.arange(30), 2, 3)
    assert sorted(np.unique(counts)) == [-3, -2, -1, 0, 1, 2, 3]
    share = np.array([(counts == value).mean() for value in range(-3, 4)])
    assert np.abs(share - 1 / 7).max() < 0.01  # 12,000 draws: 3 standard errors


@pytest.mark.parametrize(("n", "seed", "words"), [(0, 0, "n_samples"), (3, -1, "seed")])
def test_there_is_at_least_one_draw_from_a_seed(n: int, seed: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Sampling(n, seed)


@pytest.mark.parametrize("name", METRIC_NAMES)
def test_a_part_of_the_data_gives_its_part_of_the_numbers(name: str) -> None:
    x = noise(7, 3, 16, 16)
    options: dict[str, Any] = {"groups": ["rotation", "scale"], "n_samples": 3, "output_fn": None}
    whole = measure(corner, x, name, **options)
    part = measure(corner, x[4:], name, first_index=4, **options)
    for one, other in zip(whole, part, strict=True):
        assert other.index.tolist() == [4, 5, 6]
        np.testing.assert_allclose(other.per_example, one.per_example[4:], rtol=1e-12)
        for kind, values in other.transformations.items():
            assert np.array_equal(values, one.transformations[kind][4:])
    shifted = measure(corner, x[4:], name, **options)
    if name not in ("discrete_group", "lee_fd"):  # which draw nothing
        assert any(
            not np.array_equal(a.transformations[kind], b.transformations[kind])
            for a, b in zip(shifted, part, strict=True)
            for kind in a.transformations
        )
    with pytest.raises(ValueError, match="first_index"):
        measure(corner, x, name, first_index=-1)


@pytest.mark.parametrize("name", [name for name in METRIC_NAMES if name != "consistency"])
def test_outputs_may_move_in_every_metric_that_compares_them(name: str) -> None:
    x = noise(2, 3, 16, 16)
    options: dict[str, Any] = {
        "groups": "brightness",
        "output_fn": None,
        "n_samples": 2,
        "options": {n: {"border": "circular"} for n in ("eq_t", "eq_t_frac", "eq_r")},
    }
    moving = measure(lambda x: 2 * x, x, name, output_layout=NCHW, **options)
    still = measure(lambda x: 2 * x, x, name, **options)
    for a, b in zip(moving, still, strict=True):
        assert (a.parameters["output_layout"], b.parameters["output_layout"]) == (
            "nchw",
            "trivial",
        )
        assert a.value < 0.05 * b.value  # a pointwise linear map commutes with every motion


def test_unknown_keywords_are_refused() -> None:
    call = cast("Callable[..., object]", eq_t)
    with pytest.raises(TypeError, match="n_sample"):
        call(corner, noise(1, 3, 8, 8), n_sample=3)


def test_former_names_of_shifts_in_pixels_still_work() -> None:
    x = noise(3, 3, 16, 16)
    now = consistency(corner, x, max_shift_pixels=2, n_samples=3)
    with pytest.warns(DeprecationWarning, match="max_shift_pixels"):
        before = consistency(corner, x, max_shift=2, n_samples=3)
    assert before.to_json() == now.to_json()
    assert now["pairs"].parameters["max_shift_pixels"] == 2
    one = np.ones(3)
    with pytest.warns(DeprecationWarning, match="max_shift_pixels"):
        cropped, _ = integer_shift(x, one, one, "crop", max_shift=2)
    assert torch.equal(cropped, integer_shift(x, one, one, "crop", 2)[0])


@pytest.mark.parametrize("motion", [IntegerShift(), FractionalShift(), Turn()], ids=type)
def test_a_motion_moves_every_grid_by_the_same_share(motion: Motion) -> None:
    """Pooling commutes with motions of what is constant over its windows."""
    coarse = torch.nn.functional.interpolate(noise(1, 1, 3, 5), (24, 40), mode="bicubic")
    fine = coarse.repeat_interleave(2, -1).repeat_interleave(2, -2)
    draws = np.array([[0.7, -0.6]])[:, : motion.n_draws]
    plan = motion.plan(draws, [(48, 80), (24, 40)])
    moves = motion.move(plan, (48, 80))
    moved, _ = moves.act(coarse)
    expected = torch.nn.functional.avg_pool2d(moves.act(fine)[0], 2)
    inner = (..., slice(8, -8), slice(12, -12))
    assert (moved - coarse)[inner].abs().mean() > 0.05
    assert (moved - expected)[inner].abs().max() < 0.02
    alone = motion.move(motion.plan(draws, [(24, 40)]), (24, 40)).act(coarse)[0]
    torch.testing.assert_close(alone, moved)


def test_integer_shifts_are_whole_on_every_grid_or_refused() -> None:
    draws = Sampling(500).uniform("eq_t", np.arange(1), 2)[0]
    plan = IntegerShift(max_shift=0.5).plan(draws, [(12, 16), (6, 4), (12, 8)])
    assert sorted(set(plan["dx_px"])) == [-8, -4, 0, 4, 8]
    assert sorted(set(plan["dy_px"])) == [-6, -4, -2, 0, 2, 4, 6]
    assert not IntegerShift().fits([(12, 16), (12, 5)])
    with pytest.raises(ValueError, match="divides every other; got 12 × 16 and 12 × 5"):
        IntegerShift().plan(draws, [(12, 16), (12, 5)])
    with pytest.raises(ValueError, match="nothing would move"):
        IntegerShift(max_shift=0.1).plan(draws, [(12, 16), (4, 4)])
    least = IntegerShift(max_shift=0.1, least=1).plan(draws, [(12, 16), (4, 4)])
    assert sorted(set(least["dx_px"])) == [-4, 0, 4]


def test_borders_are_those_of_the_motion() -> None:
    with pytest.raises(ValueError, match="border"):
        Turn(border=cast(Any, "crop"))


def test_options_stand_in_the_signatures() -> None:
    """A reader of ``help`` sees what kind of keywords a metric takes."""
    (last,) = [p for p in inspect.signature(eq_t).parameters.values() if p.kind is p.VAR_KEYWORD]
    assert last.annotation == "Unpack[ComparisonOptions]"
