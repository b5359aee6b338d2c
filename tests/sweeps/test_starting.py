"""Processes of jobs: each its own, however it is started, and none outlives the sweep."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from captum_lie.studies.sweeping import Resources, SweepSettings, expand, parse_splits, starting
from captum_lie.studies.sweeping.grid import Task
from captum_lie.studies.sweeping.job import Job
from captum_lie.studies.sweeping.starting import Starter
from captum_lie.studies.sweeping.store import Store
from tests.cluster.running import until
from tests.sweeps.test_sweep import FACTORIES, cells, factory, started

pytestmark = pytest.mark.slow


def job(name: str, out: Path) -> Job:
    (asked,) = expand([f"{name}={FACTORIES}:{name}"])
    (split,) = parse_splits(["test=builtin"], 2)
    settings = SweepSettings(groups=("rotation",), relative=False)
    return Job((Task(name, asked, split),), settings, Resources(), "cpu", out)


def noted(file: Path) -> list[int]:
    """The processes that ``lingers`` wrote down, once it has."""
    until(lambda: file.exists() and file.read_text().endswith("\n"))
    return [int(word) for word in file.read_text().split()]


def ended(pid: int) -> bool:
    """Whether a process has ended, though its parent may not know yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.fixture(params=[True, False], ids=["forked", "alone"])
def starter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Starter:
    if request.param and not starting.FORKS:
        pytest.skip("nothing is forked here")
    monkeypatch.setattr(starting, "FORKS", request.param)
    return Starter()


def test_how_a_process_ended_is_known(starter: Starter, tmp_path: Path) -> None:
    store, log = Store(tmp_path), tmp_path / "log"
    with starter:
        for name, code in (("fine", 0), ("dies", -signal.SIGKILL), ("crashes", -signal.SIGSEGV)):
            process = starter.start(job(name, tmp_path), log)
            assert process.wait(60) == process.poll() == code
            process.send_signal(signal.SIGTERM)  # too late, and does no harm
        assert "Segmentation fault" in log.read_text()
        cell = store.read("fine")
        assert cell is not None
        assert cell.status == "ok", cell.cause
        process = starter.start(job("sleeps", tmp_path), log)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == -signal.SIGTERM


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_process_outlives_a_sweep_that_is_killed(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    sweep = started(tmp_path / "out", factory("lingers"), COUNTED=str(notes))
    model, origin = noted(notes)
    assert origin != sweep.pid
    sweep.kill()
    sweep.wait()
    until(lambda: ended(model) and ended(origin), 30)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_that_loses_its_origin_has_failed_and_the_sweep_goes_on(tmp_path: Path) -> None:
    notes, out = tmp_path / "notes", tmp_path / "out"
    sweep = started(out, factory("lingers"), "cnn", COUNTED=str(notes))
    model, origin = noted(notes)
    os.kill(origin, signal.SIGKILL)
    assert sweep.wait(200) == 1
    assert ended(model)
    assert "killed by SIGKILL" in cells(out)["lingers"].cause
    assert cells(out)["cnn"].status == "ok"


@pytest.mark.skipif(not starting.FORKS, reason="nothing is forked here")
def test_a_forked_process_starts_as_a_fresh_one_does(tmp_path: Path) -> None:
    """Whatever one model did to its process, the next knows nothing of it."""
    with Starter() as starter:
        for name in ("meddles", "meddles"):
            assert starter.start(job(name, tmp_path), tmp_path / "log").wait(200) == 0
            cell = Store(tmp_path).read(name)
            assert cell is not None
            assert cell.status == "ok", cell.cause
