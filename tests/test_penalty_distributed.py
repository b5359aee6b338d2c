"""The training penalty in two processes: gradients are those of one process on all images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from captum_lie import LiePenalty
from tests.toy_models import build, images

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not dist.is_available(), reason="this PyTorch has no processes to train in"),
]

PROCESSES = 2


class PartlyUsed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = build("mixer")
        self.unused = nn.Linear(2, 2, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return y


class Normalised(nn.Module):
    """Running statistics that would differ between the processes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = build("resnet_smooth").train()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return y


def alone(model: nn.Module, x: Tensor) -> Tensor:
    return LiePenalty(["rotation", "scale"])(model, x)


def shared(model: nn.Module, x: Tensor) -> Tensor:
    output, error = LiePenalty(["rotation", "scale"]).with_output(model, x)
    return 0.01 * output.square().mean() + error


def apart(model: nn.Module, x: Tensor) -> Tensor:
    return 0.01 * model(x).square().mean() + LiePenalty(["rotation", "scale"])(model, x)


CASES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "a call": (alone, PartlyUsed, {"find_unused_parameters": True}),
    "with output": (shared, lambda: build("vit"), {}),
    "two evaluations": (apart, lambda: build("mixer"), {}),
    "unused parameters": (shared, PartlyUsed, {"find_unused_parameters": True}),
    "static graph": (shared, lambda: build("mixer"), {"static_graph": True}),
    "buckets that view gradients": (
        shared,
        lambda: build("mixer"),
        {"gradient_as_bucket_view": True},
    ),
}


def work(rank: int, folder: str) -> None:
    """Save the gradients of each case, after the second of two steps."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=PROCESSES
    )
    found: dict[str, Any] = {}
    x = images(4).chunk(PROCESSES)[rank]
    for name, (loss, make, options) in CASES.items():
        model = DistributedDataParallel(make(), **options)
        for _ in range(2):
            model.zero_grad()
            loss(model, x).backward()
        assert type(model.module) is type(make())
        found[name] = {k: p.grad for k, p in model.module.named_parameters()}
    normalised = DistributedDataParallel(Normalised())
    alone(normalised, x).backward()
    found["statistics"] = {k: b.clone() for k, b in normalised.module.named_buffers()}
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("processes")
    spawn(work, args=(str(folder),), nprocs=PROCESSES)
    return [torch.load(folder / f"{rank}.pt") for rank in range(PROCESSES)]


@pytest.mark.parametrize("case", CASES)
def test_gradients_equal_those_of_one_process(case: str, results: list[dict[str, Any]]) -> None:
    loss, make, _ = CASES[case]
    model = make()
    loss(model, images(4)).backward()
    for result in results:
        for name, parameter in model.named_parameters():
            found = result[case][name]
            if parameter.grad is None:
                assert found is None or not found.any()
            else:
                torch.testing.assert_close(found, parameter.grad, rtol=1e-9, atol=1e-12)
    halves = [make() for _ in range(PROCESSES)]
    for half, x in zip(halves, images(4).chunk(PROCESSES), strict=True):
        loss(half, x).backward()
    first, second = (next(iter(half.parameters())).grad for half in halves)
    assert not torch.allclose(first, second)  # so that the mean says something


def test_a_call_leaves_running_statistics(results: list[dict[str, Any]]) -> None:
    for result in results:
        for name, buffer in Normalised().named_buffers():
            assert torch.equal(buffer, result["statistics"][name])
