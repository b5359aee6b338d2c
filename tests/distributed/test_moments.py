"""Moments of parts put together are those of the whole, and give its table."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset

from captum_lie.images import Batches, ImageStack
from captum_lie.results import LeeResult
from captum_lie.studies.distributed import evaluate
from captum_lie.studies.moments import combined, moments_of, nothing
from captum_lie.studies.sharding import part_of
from tests.distributed.subjects import GROUPS, IMAGES, local_error

EXACT: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-300, "equal_nan": True}


def result(n: int, *, spread: float = 1.0, seed: int = 0) -> LeeResult:
    generator = torch.Generator().manual_seed(seed)
    lee, control = 1 + spread * torch.rand(2, n, 2, generator=generator, dtype=torch.float64)
    grams = torch.rand(n, 6, 6, generator=generator, dtype=torch.float64)
    return LeeResult(("a", "b"), lee, control, 0.1 * control, grams)


def rows(whole: LeeResult, start: int, stop: int) -> LeeResult:
    assert whole.control is not None
    assert whole.grams is not None
    return LeeResult(
        whole.groups, whole.lee[start:stop], whole.control[start:stop],
        grams=whole.grams[start:stop],
    )  # fmt: skip


@settings(deadline=None)
@given(cuts=st.lists(st.integers(0, 12), max_size=4), spread=st.sampled_from([1.0, 1e-6]))
def test_parts_make_the_whole(cuts: list[int], spread: float) -> None:
    whole = result(12, spread=spread)
    edges = [0, *sorted(cuts), 12]
    parts = [
        moments_of(rows(whole, a, b)) if a < b else nothing(whole.groups)
        for a, b in pairwise(edges)
    ]
    found = combined(parts)
    assert found.n == 12
    torch.testing.assert_close(found.mean[:, 0], whole.mean, **EXACT)
    torch.testing.assert_close(found.relative, whole.relative, **EXACT)
    torch.testing.assert_close(found.gram, whole.gram, **EXACT)
    # Of values 1 + 1e-6 r with 16 digits, the differences have 10.
    within: dict[str, Any] = {"rtol": 1e-15 / spread * 100, "atol": 0.0}
    torch.testing.assert_close(found.stderr, whole.stderr, **within)
    torch.testing.assert_close(found.relative_stderr, whole.relative_stderr, **within)
    pd.testing.assert_frame_equal(found.to_dataframe(), whole.to_dataframe(), rtol=1e-6)


def test_a_vector_holds_everything() -> None:
    found = moments_of(result(5))
    again = type(found).from_vector(found.groups, found.vector())
    assert again.n == 5
    for name in ("mean", "scatter", "gram"):
        assert torch.equal(getattr(again, name), getattr(found, name))


def test_what_was_not_measured_stays_so() -> None:
    bare = LeeResult(("a",), torch.ones(3, 1).double())
    found = combined([moments_of(bare), nothing(("a",)), moments_of(bare)])
    table = found.to_dataframe()
    assert table["n"].item() == 6
    assert table["lee"].item() == 1
    assert table["stderr"].item() == 0
    assert table[["relative_lee", "relative_stderr"]].isna().to_numpy().all()
    assert found.gram.isnan().all()
    single = moments_of(LeeResult(("a",), torch.ones(1, 1).double(), torch.zeros(1, 1).double()))
    assert single.stderr.isnan().all()
    assert single.relative.isnan().all()


@pytest.mark.parametrize("count", [1, 2, 3, 9])
@pytest.mark.parametrize("kind", ["DataLoader", "Batches", "list"])
def test_parts_of_a_loader_are_measured_as_in_the_whole(kind: str, count: int) -> None:
    """Whole batches, uneven parts, and more parts than batches."""
    method = local_error()
    loaders: dict[str, Iterable[Any]] = {
        "DataLoader": DataLoader(TensorDataset(IMAGES), batch_size=3),
        "Batches": Batches(ImageStack(IMAGES), batch_size=3),
        "list": list(IMAGES.split(3)),
    }
    loader = loaders[kind]
    parts = [part_of(loader, i, count) for i in range(count)]
    assert [part is None for part in parts] == [i >= 5 for i in range(count)]
    measured = [
        method.collect(part.batches, GROUPS, gram=True, n_probes=8, first_index=part.first)
        for part in parts
        if part is not None
    ]
    whole = method.collect(IMAGES.split(3), GROUPS, gram=True, n_probes=8)
    together = LeeResult.concatenate(measured)
    assert torch.equal(together.lee, whole.lee)
    assert together.control is not None
    assert whole.control is not None
    assert torch.equal(together.control, whole.control)
    found = combined([moments_of(part) for part in measured]).to_dataframe()
    pd.testing.assert_frame_equal(found, whole.to_dataframe(), rtol=1e-12)


def test_one_process_evaluates_as_the_local_errordoes() -> None:
    method = local_error()
    loader = DataLoader(TensorDataset(IMAGES), batch_size=4)
    found = evaluate(method, loader, GROUPS, n_probes=8).to_dataframe()
    pd.testing.assert_frame_equal(found, method.evaluate(loader, GROUPS, n_probes=8), rtol=1e-12)


def test_what_cannot_be_shared_out_is_refused() -> None:
    data = TensorDataset(IMAGES)
    for loader in (DataLoader(data, batch_size=2, shuffle=True), DataLoader(data, batch_size=None)):
        with pytest.raises(ValueError, match="without shuffle"):
            part_of(loader, 0, 2)
    with pytest.raises(TypeError, match="got generator"):
        part_of((x for x in IMAGES.split(2)), 0, 2)
    with pytest.raises(ValueError, match="no images"):
        part_of([], 0, 2)
    last = DataLoader(data, batch_size=4, drop_last=True)
    parts = [part_of(last, i, 2) for i in range(2)]
    assert [len(b) for p in parts if p is not None for (b,) in p.batches] == [4, 4, 4]
