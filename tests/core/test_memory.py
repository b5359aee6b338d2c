"""Large buffers are kept while anybody is inside, and the allocator is as usual afterwards."""

from __future__ import annotations

import threading
from contextlib import nullcontext

import pytest

from captum_lie.core import memory
from captum_lie.core.memory import kept_buffers


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    made: list[tuple[int, int]] = []

    def mallopt(option: int, value: int) -> int:
        made.append((option, value))
        return 1

    monkeypatch.setattr(memory, "_mallopt", mallopt)
    return made


def test_set_on_entering_and_restored_on_leaving_the_outermost(
    calls: list[tuple[int, int]],
) -> None:
    with kept_buffers():
        entered = calls.copy()
        with kept_buffers():
            pass
        assert calls == entered
    assert dict(entered)[memory._MMAP_MAX] == 0
    left = dict(calls[len(entered) :])
    assert left[memory._MMAP_MAX] == 65536
    assert left[memory._TRIM_THRESHOLD] == 2**28


def test_restored_after_an_error_and_by_the_last_thread(calls: list[tuple[int, int]]) -> None:
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with kept_buffers():
            inside.set()
            leave.wait()

    thread = threading.Thread(target=other)
    thread.start()
    inside.wait()
    entered = calls.copy()
    with pytest.raises(KeyError), kept_buffers():
        raise KeyError
    assert calls == entered  # the other thread is still inside
    leave.set()
    thread.join()
    assert dict(calls)[memory._MMAP_MAX] == 65536


def test_without_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_mallopt", None)
    assert isinstance(kept_buffers(), nullcontext)
