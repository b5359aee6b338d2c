"""Threads that measure at once, and scopes that overlap: each result as alone, no trace left."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from threading import Barrier, BrokenBarrierError, Event, Thread
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import CheckpointFunction

from captum_lie import LayerwiseEquivarianceError, LocalEquivarianceError, lie_derivative
from captum_lie.core.autodiff import differentiable
from captum_lie.core.turns import Turns
from tests.toy_models import build, images

Work = Callable[[nn.Module, Tensor], Tensor]

WORK: dict[str, Work] = {
    "lie_derivative": lambda model, x: lie_derivative(model, x, "all"),
    "score": lambda model, x: LocalEquivarianceError(model).score(x, "all"),
    "layerwise": lambda model, x: (
        LayerwiseEquivarianceError(model).attribute(x, "rotation").contributions
    ),
}


def switches() -> dict[str, Any]:
    """What is the whole process's."""
    return {
        "fast path": torch.backends.mha.get_fastpath_enabled(),
        "flash": torch.backends.cuda.flash_sdp_enabled(),
        "efficient": torch.backends.cuda.mem_efficient_sdp_enabled(),
        "math": torch.backends.cuda.math_sdp_enabled(),
        "checkpoints": "apply" in vars(CheckpointFunction),
        "forward mode": torch.autograd.forward_ad._current_level,
    }


class Meets(nn.Module):
    """A model that waits within its evaluation for that of another thread, if that may run."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.barrier: Barrier | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.barrier is not None and not self.barrier.broken:
            with suppress(BrokenBarrierError):  # nobody came: the other waits for its turn
                self.barrier.wait(0.2)
        return self.model(x)


@pytest.mark.parametrize("names", [("resnet", "vit"), ("vit", "mixer")])
@pytest.mark.parametrize("work", WORK)
def test_two_threads_give_what_each_gives_alone(work: str, names: tuple[str, str]) -> None:
    models, x = [Meets(build(name)).eval() for name in names], images()
    alone = [WORK[work](model, x) for model in models]
    before = switches()
    barrier = Barrier(2)
    for model in models:
        model.barrier = barrier
    with warnings.catch_warnings(), ThreadPoolExecutor(2) as pool:
        warnings.simplefilter("error")  # no fallback, either
        found = list(pool.map(WORK[work], models, [x, x]))
    for mine, expected in zip(found, alone, strict=True):
        torch.testing.assert_close(mine, expected)
    assert switches() == before


@pytest.mark.parametrize("work", WORK)
def test_two_threads_may_measure_one_model(work: str) -> None:
    model, x = Meets(build("resnet")).eval(), images()
    assert all(p.requires_grad for p in model.parameters())
    alone = [WORK[work](model, part) for part in (x, x.flip(-1))]
    model.barrier = Barrier(2)
    with warnings.catch_warnings(), ThreadPoolExecutor(2) as pool:
        warnings.simplefilter("error")
        found = list(pool.map(WORK[work], [model] * 2, [x, x.flip(-1)]))
    for mine, expected in zip(found, alone, strict=True):
        torch.testing.assert_close(mine, expected)
    assert all(p.requires_grad for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_overlapping_scopes_of_two_threads_leave_all_as_it_was() -> None:
    """The first thread leaves its scope while the second is in, or waits to get in."""
    before = switches()
    inside, leave = Event(), Event()
    seen = []

    def second() -> None:
        with differentiable():
            inside.set()
            leave.wait(10)
            seen.append(switches())

    with differentiable():
        during = switches()
        thread = Thread(target=second)
        thread.start()
        inside.wait(0.2)
    leave.set()
    thread.join(10)
    assert seen == [during]
    assert switches() == before
    assert during["fast path"] is during["flash"] is False
    assert during["checkpoints"]


def test_scopes_of_one_thread_may_end_in_any_order() -> None:
    before = switches()
    first, second = differentiable(), differentiable()
    first.__enter__()
    during = switches()
    second.__enter__()
    first.__exit__(None, None, None)
    assert switches() == during != before
    second.__exit__(None, None, None)
    assert switches() == before


def test_scopes_restore_what_the_user_had_chosen() -> None:
    def fail() -> None:
        with differentiable():
            assert switches()["math"]
            raise KeyError("failed within")

    with sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION):
        before = switches()
        assert not before["math"]
        with pytest.raises(KeyError, match="failed within"):
            fail()
        assert switches() == before
    own = CheckpointFunction.apply
    CheckpointFunction.apply = own
    try:
        with differentiable():
            assert CheckpointFunction.apply is not own
        assert CheckpointFunction.apply is own
    finally:
        del CheckpointFunction.apply


def test_settings_that_cannot_be_made_let_others_have_a_turn() -> None:
    class Fails:
        def __enter__(self) -> None:
            raise OSError("no")

        def __exit__(self, *_: object) -> None:
            raise AssertionError("never entered")

    turns = Turns(Fails)
    with ThreadPoolExecutor(1) as pool:
        for enter in (turns.__enter__, lambda: pool.submit(turns.__enter__).result(5)):
            with pytest.raises(OSError, match="no"):
                enter()


def test_scopes_that_share_their_turns_never_wait_for_one_another() -> None:
    """Each of two threads enters first what the other enters second."""
    outer = Turns(nullcontext)
    inner = Turns(nullcontext, within=outer)
    entered = Barrier(2)

    def enter(first: Turns, second: Turns) -> None:
        with first:
            with suppress(BrokenBarrierError):
                entered.wait(0.5)  # in vain: the other thread is not let in
            with second:
                pass

    threads = [
        Thread(target=enter, args=pair, daemon=True) for pair in ((outer, inner), (inner, outer))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)
