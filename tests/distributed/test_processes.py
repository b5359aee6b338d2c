"""Several processes together measure what one measures alone."""

from __future__ import annotations

import faulthandler
import os
import socket
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import distributed as dist
from torch.multiprocessing.spawn import ProcessRaisedException
from torch.multiprocessing.spawn import spawn as start_processes
from torch.utils.data import DataLoader, TensorDataset

from captum_lie.core.groups import get_groups
from captum_lie.errors import InvalidValueError
from captum_lie.results import Measurement, load, save
from captum_lie.studies import Baselines, Demands, Options, distributed
from captum_lie.studies import plan as studies
from captum_lie.studies.sharding import Shard
from captum_lie.studies.sources import find_images
from captum_lie.studies.specs import candidates_from, parse_specs
from tests.distributed.subjects import GROUPS, IMAGES, local_error

pytestmark = pytest.mark.slow


def spawn(work: object, count: int, folder: Path) -> None:
    """Run ``work(folder)`` in so many processes, as torchrun would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start_processes(_process, (count, port, work, folder), nprocs=count)


def _process(rank: int, count: int, port: int, work: object, folder: Path) -> None:
    faulthandler.enable()
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    assert callable(work)
    with distributed.process_group():
        assert (distributed.rank(), distributed.world_size()) == (rank, count)
        work(folder)
    assert not dist.is_initialized()


def evaluated(folder: Path) -> None:
    loader = DataLoader(TensorDataset(IMAGES), batch_size=6)  # batches of 6, 6 and 2
    found = distributed.evaluate(local_error(), loader, GROUPS, gram=True, n_probes=8)
    torch.save((found.to_dataframe(), found.gram), folder / f"{distributed.rank()}.pt")


@pytest.mark.parametrize("count", [2, 5])
def test_moments_are_those_of_one_process(tmp_path: Path, count: int) -> None:
    """Parts of one and two batches, and more processes than batches."""
    spawn(evaluated, count, tmp_path)
    alone = local_error().collect(IMAGES.split(6), GROUPS, gram=True, n_probes=8)
    for rank in range(count):
        table, gram = torch.load(tmp_path / f"{rank}.pt", weights_only=False)
        pd.testing.assert_frame_equal(table, alone.to_dataframe(), rtol=1e-12)
        torch.testing.assert_close(gram, alone.gram, rtol=1e-12, atol=0)


def plan(shard: Shard | None = None) -> studies.Plan:
    return studies.Plan(
        get_groups(["rotation", "brightness"]),
        Demands(batch_size=4),
        Options(pictured=2),
        Baselines(["consistency", "eq_t"], n_samples=2),
        layer_groups=get_groups(["rotation"]),
        shard=shard or Shard(),
    )


def carried_out(folder: Path) -> None:
    models = candidates_from(parse_specs(["cnn"]), control=True)
    cpu = torch.device("cpu")
    found = distributed.carry_out(plan(), models, find_images("builtin", 10), cpu)
    assert (found is None) == (distributed.rank() > 0)
    if found is not None:
        save(found, folder / "together.safetensors")


@pytest.mark.parametrize("count", [2, 4])
def test_the_first_process_gets_the_record_of_one_process(tmp_path: Path, count: int) -> None:
    """Batches of 4, 4 and 2 images: uneven parts, and a process without any."""
    spawn(carried_out, count, tmp_path)
    together = load(tmp_path / "together.safetensors", Measurement)
    models = candidates_from(parse_specs(["cnn"]), control=True)
    alone = studies.carry_out(plan(), models, find_images("builtin", 10), torch.device("cpu"))
    assert together.table.equals(alone.table)
    assert together.metrics is not None
    assert alone.metrics is not None
    assert together.metrics.equals(alone.metrics)
    for one, other in zip(together.models, alone.models, strict=True):
        assert one.lee is not None
        assert other.lee is not None
        assert torch.equal(one.lee.lee, other.lee.lee)
        assert one.images_digest == other.images_digest
        assert one.accuracy == other.accuracy
        for mine, theirs in zip(one.layers, other.layers, strict=True):
            assert mine.to_dataframe().equals(theirs.to_dataframe())
    shown = [m.shown for m in (together["cnn"], alone["cnn"])]
    assert all(images is not None and len(images) == 2 for images in shown)


def fails_in_one(folder: Path) -> None:
    if distributed.rank() == 1:
        raise InvalidValueError("only here")
    distributed.evaluate(local_error(), [IMAGES], "rotation")


def test_a_process_that_fails_does_not_leave_the_others_waiting(tmp_path: Path) -> None:
    with pytest.raises(ProcessRaisedException, match=r"only here|closed by peer"):
        spawn(fails_in_one, 2, tmp_path)
