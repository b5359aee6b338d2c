"""Sweeps handed to jobs, as far as no cluster is needed."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from captum_lie.errors import InvalidValueError
from captum_lie.results.cell import Cell
from captum_lie.studies.sharding import Shard
from captum_lie.studies.sweeping import (
    Cluster,
    Resources,
    Submission,
    SweepSettings,
    expand,
    parse_splits,
    processes,
    submission,
    submit,
    sweep,
)
from captum_lie.studies.sweeping.grid import Grid, Task
from captum_lie.studies.sweeping.job import Job, blank
from captum_lie.studies.sweeping.part import Part
from captum_lie.studies.sweeping.processes import stamp
from captum_lie.studies.sweeping.starting import Process, Starter
from captum_lie.studies.sweeping.store import Store
from captum_lie.studies.sweeping.work import Again, Work
from tests.cluster.running import FAST, factory, swept, until
from tests.command_line import refused, run

submitit = pytest.importorskip("submitit")


def grid(*models: str) -> Grid:
    (split,) = parse_splits(["test=builtin"], 3)
    asked = expand(models)
    return Grid(tuple(Task(a.spec.label, a, split) for a in asked), SweepSettings())


def written(store: Store, task: Task, status: str = "ok") -> None:
    cell = blank(task, SweepSettings())
    store.write(Cell(**{**vars(cell), "status": status}))


def cells(out: Path) -> dict[str, Cell]:
    return {cell.label: cell for cell in Store(out).everything()}


def test_what_submitit_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert Cluster("local").parameters()["gpus_per_node"] == 3
    assert Cluster("slurm").parameters()["gpus_per_node"] is None
    told = Cluster(
        "slurm", partition="gpu", gpus=2, cpus=4, minutes=30, options={"qos": "low"}
    ).parameters()
    text = sbatch(told)
    for line in (
        "partition=gpu", "gpus-per-node=2", "cpus-per-task=4", "time=30", "qos=low", "requeue",
    ):  # fmt: skip
        assert f"#SBATCH --{line}\n" in text
    assert "srun" in text
    assert "--cpus-per-task=4 python" in text


def sbatch(told: dict[str, Any]) -> str:
    """The batch script of those parameters, as submitit writes it."""
    from submitit.slurm import slurm

    renamed = {"timeout_min": "time"}
    given = {
        renamed.get(name, name.removeprefix("slurm_")): value
        for name, value in told.items()
        if value is not None
    }
    found: str = slurm._make_sbatch_string("python", folder="/tmp", **given)
    return found


def test_what_cannot_be_submitted_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ("sweep", "--models", "cnn", *FAST, "--out", tmp_path)
    assert "say which one, --cluster" in refused(*command, "--array", "3")
    assert "say which one, --cluster" in refused(*command, "--slurm", "qos=low")
    assert "leave out --shard" in refused(*command, "--cluster", "local", "--shard", "0/2")
    assert "--time" in refused(*command, "--cluster", "local", "--time", "1")
    with pytest.raises(InvalidValueError, match="minutes must be at least 5; got 1"):
        Cluster("local", minutes=1)
    unknown: Any = "pbs"
    with pytest.raises(InvalidValueError, match="cluster"):
        Cluster(unknown)
    monkeypatch.setenv("PATH", "")
    assert "no sbatch" in refused(*command, "--cluster", "slurm")
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert "pip install 'captum-lie[cluster]'" in refused(*command, "--cluster", "local")
    assert not (tmp_path / "jobs").exists()


def test_parts_hold_each_missing_cell_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[Part] = []

    def take(parts: list[Part], *_: object) -> list[object]:
        handed[:] = pickle.loads(pickle.dumps(parts))  # as they reach the cluster
        return []

    monkeypatch.setattr("captum_lie.studies.sweeping.cluster._submitted", take)
    asked, splits = expand(["embedded"]), parse_splits(["test=builtin"], 3)
    settings = SweepSettings(groups=("rotation",))
    known = submit(Cluster("local", 2), asked, splits, tmp_path, settings)
    labels = [[task.asked.spec.label for task in part.grid.tasks] for part in handed]
    assert labels == [["cnn", "vit"], ["cnn_blur", "mixer"]]
    assert [len(known.grid.tasks), len(known.left())] == [4, 4]
    written(known.store, known.grid.tasks[0])
    written(known.store, known.grid.tasks[1], "failed")

    rest = submit(Cluster("local", 9), asked, splits, tmp_path, settings)
    assert [p.grid.tasks[0].asked.spec.label for p in handed] == ["vit", "mixer"]
    assert len(rest.left()) == 2
    again = submit(Cluster("local"), asked, splits, tmp_path, settings, again=Again(failed=True))
    (only,) = handed
    assert [t.asked.spec.label for t in only.grid.tasks] == ["cnn_blur", "vit", "mixer"]
    assert len(again.left()) == 3
    written(again.store, again.grid.tasks[1])
    assert len(again.left()) == 2


def test_a_checkpoint_drops_what_is_at_work_and_keeps_what_is_left(tmp_path: Path) -> None:
    part = Part(grid("cnn", "vit"), tmp_path, Resources(), Again(everything=True))
    assert part.checkpoint().function == part  # before it began
    part.work = Work(part.grid, Store(tmp_path), part.resources, part.again)
    part.work.touched.add("cnn")
    later = pickle.loads(pickle.dumps(part.checkpoint())).function
    assert part.work.stop.is_set()
    assert [task.key for task in later.grid.tasks] == ["vit"]
    assert later.work is None
    assert later.again == part.again


def test_waiting_ends_with_the_cells_or_with_the_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, whole = Store(tmp_path), grid("cnn", "vit")
    written(store, whole.tasks[0])
    before = {task.key: stamp(store, task) for task in whole.tasks}
    monkeypatch.setitem(submission.LOOK, "slurm", 0.01)
    answers: list[Counter[str] | None] = []

    def answer(name: str) -> Counter[str] | None:
        assert name == submission.job_name(tmp_path)
        found = answers.pop(0)
        if found == {"RUNNING": 1}:
            written(store, whole.tasks[0])
        return found

    monkeypatch.setattr(submission, "queued", answer)
    known = Submission("slurm", whole, store, before)
    answers[:] = [Counter(PENDING=1), None, None, None, Counter(RUNNING=1), Counter(), Counter()]
    summary = known.collect()
    assert not answers
    assert (summary.computed, summary.missing, len(summary.cells)) == (1, 1, 1)
    written(store, whole.tasks[1])
    answers[:] = [Counter(RUNNING=1)]
    assert known.collect().missing == 0
    assert (tmp_path / "sweep.csv").exists()


class Ending(Starter):
    """Starts processes that somebody has told to end."""

    def start(self, job: Job, log: Path) -> Process:
        return self

    def poll(self) -> int:
        return -signal.SIGTERM

    def wait(self, timeout: float | None = None) -> int:
        return self.poll()

    def send_signal(self, sig: int) -> None:
        raise AssertionError("it has ended")


@pytest.mark.parametrize("seconds", [0.1, None])
def test_a_process_that_was_told_to_end_has_not_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float | None
) -> None:
    """Slurm signals every process of a job: a model's may end before the sweep has heard of it."""
    monkeypatch.setattr(processes, "GRACE", 0.5 if seconds is None else 30)
    whole, store, stop = grid("cnn"), Store(tmp_path), threading.Event()
    if seconds is not None:
        threading.Timer(seconds, stop.set).start()
    job = Job(whole.tasks, whole.settings, Resources(), "cpu", tmp_path)
    processes.run(job, store, stop, lambda task: None, Ending())
    found = store.read("cnn")
    if seconds is not None:
        assert found is None
    else:
        assert found is not None
        assert found.cause == "the process was killed by SIGTERM"


def test_an_array_jobs_task_knows_its_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("SLURM_ARRAY"):
            monkeypatch.delenv(name)
    assert Shard.from_environment() == Shard(0, 1)
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "4")
    assert Shard.from_environment() == Shard(2, 4)
    monkeypatch.setenv("SLURM_ARRAY_TASK_MIN", "1")  # sbatch --array=1-4
    assert Shard.from_environment() == Shard(1, 4)
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "7")  # sbatch --array=1,3,5,7
    with pytest.raises(InvalidValueError, match="got 6/4"):
        Shard.from_environment()


def test_the_tasks_of_an_array_share_out_the_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "3")
    listed = []
    for index in range(3):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(index))
        result = run("sweep", "--models", "embedded", *FAST, "--out", tmp_path, "--dry-run")
        assert result.exit_code == 0, result.output
        listed += [line.split("\t")[1] for line in result.stdout.splitlines() if "\t" in line]
    assert listed == ["cnn", "mixer", "cnn_blur", "vit"]


@pytest.mark.slow
def test_jobs_on_this_machine_give_what_a_sweep_gives(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    assert swept("cnn,vit", here)[0] == 0
    code, said = swept("cnn,vit", there, "--cluster", "local", "--array", "2")
    assert code == 0, said
    assert "2 cells, 2 computed now, 0 failed" in said
    assert (there / "sweep.csv").read_bytes() == (here / "sweep.csv").read_bytes()


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_job_told_to_checkpoint_is_started_again(tmp_path: Path) -> None:
    notes, out = tmp_path / "notes", tmp_path / "out"
    options = ("--cluster", "local")
    code, said = swept(f"cnn,{factory('patient')}", out, *options, "--no-wait", notes=notes)
    assert code == 0, said
    until(notes.exists)
    os.kill(parent(int(notes.read_text())), signal.SIGUSR2)
    until(lambda: set(cells(out)) == {"cnn", "patient"})
    assert len(notes.read_text().splitlines()) == 2
    code, said = swept(f"cnn,{factory('patient')}", out, *options, notes=notes)
    assert code == 0, said
    assert "0 computed now" in said


@pytest.mark.slow
def test_each_device_serves_one_model_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two models that wait for one another: only together can they be made."""
    asked, splits = expand([factory("one"), factory("other")]), parse_splits(["test=builtin"], 3)
    settings = SweepSettings(groups=("rotation",), relative=False)
    for devices, status in ((("cpu", "cpu"), "ok"), (("cpu",), "failed")):
        folder = tmp_path / status
        folder.mkdir()
        monkeypatch.setenv("NOTES", str(folder))
        resources = Resources(timeout=200 if status == "ok" else 15, devices=devices)
        summary = sweep(asked, splits, folder / "out", settings, resources=resources)
        assert summary.cells[0].status == status, summary.cells[0].cause
