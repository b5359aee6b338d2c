"""Shards of a measurement: put together they are the measurement, to the last bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from captum_lie.errors import InvalidValueError
from captum_lie.images import Batches, ImageStack
from captum_lie.results import Measurement, load, merge
from captum_lie.studies.sharding import Shard
from tests.command_line import refused, run

#: 20 images in batches of 4; two groups; a control that is sampled would differ by its index.
OPTIONS = (
    "--model", "cnn", "--limit", "20", "--batch-size", "4", "--groups", "rotation,scale",
    "--metrics", "consistency,eq_t", "--samples", "2", "--pictures", "1",
)  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("shards")
    for name, extra in (
        ("whole", ()),
        ("0", ("--shard", "0/2")),
        ("1", ("--shard", "1/2")),
    ):
        assert run("measure", *OPTIONS, *extra, "--out", root / name).exit_code == 0
    return {name: root / name for name in ("whole", "0", "1")}


def stored(folder: Path) -> Measurement:
    return load(folder / "measurement.safetensors", Measurement)


def test_two_shards_merged_equal_one_run_exactly(folders: dict[str, Path]) -> None:
    whole, merged = stored(folders["whole"]), merge([stored(folders["1"]), stored(folders["0"])])
    assert [len(stored(folders[i]).models[0].lee or ()) for i in "01"] == [8, 12]
    assert merged.table.equals(whole.table)
    assert whole.metrics is not None
    assert merged.metrics is not None
    assert merged.metrics.equals(whole.metrics)
    for one, other in zip(whole.models, merged.models, strict=True):
        assert one.lee is not None
        assert other.lee is not None
        assert torch.equal(one.lee.lee, other.lee.lee)
        assert one.accuracy == other.accuracy is not None
        assert one.images_digest == other.images_digest
        if one.lee.gram is not None:
            assert other.lee.gram is not None
            assert torch.equal(one.lee.gram, other.lee.gram)


def test_report_merges_and_draws_the_same_page(folders: dict[str, Path], tmp_path: Path) -> None:
    result = run("report", folders["0"], folders["1"], "--out", tmp_path)
    assert result.exit_code == 0, result.output
    for name in ("report.html", "lee.csv", "metrics.csv"):
        assert (tmp_path / name).read_bytes() == (folders["whole"] / name).read_bytes()


def test_what_does_not_fit_together_is_refused(folders: dict[str, Path]) -> None:
    first, second, whole = (stored(folders[name]) for name in ("0", "1", "whole"))
    for shards, message in (
        ([], "nothing to merge"),
        ([first, first], "in two shards"),
        ([first, replace(second, first=12)], "8 to 11 are missing"),
        ([first, replace(second, settings={})], "settings differ"),
        ([first, replace(second, models=())], "models differ"),
    ):
        with pytest.raises(InvalidValueError, match=message):
            merge(shards)
    assert merge([whole]).table.equals(whole.table)


def test_shards_consist_of_whole_batches() -> None:
    stack = Batches(ImageStack(torch.rand(7, 1, 2, 2)), batch_size=2)
    parts = [Shard(i, 3).of(stack) for i in range(3)]
    assert [part.first for part in parts] == [0, 2, 4]
    assert [len(part) for part in parts] == [1, 1, 2]
    assert [len(image) for part in parts for image in part] == [2, 2, 2, 1]
    with pytest.raises(InvalidValueError, match="4 batches cannot be shared out to 5"):
        Shard(0, 5).of(stack)
    for text in ("2/2", "1", "a/b", "-1/2", "0/0"):
        with pytest.raises(InvalidValueError, match="shard is"):
            Shard.parse(text)
    assert "A shard is written I/N" in refused("measure", "--model", "cnn", "--shard", "half")
