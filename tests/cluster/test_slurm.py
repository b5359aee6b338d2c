"""Sweeps on a real Slurm of one node, started for these tests where it is installed.

``apt-get install slurm-wlm munge``, and be root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from captum_lie.results.cell import Cell
from captum_lie.studies.sweeping.store import Store
from captum_lie.studies.sweeping.submission import job_name, queued
from tests.cluster.running import ended, factory, started, swept, until

SCRIPT = Path(__file__).with_name("one_node.sh")
NEEDED = ("sbatch", "slurmctld", "slurmd", "munged")

pytest.importorskip("submitit")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0 or not all(map(shutil.which, NEEDED)),
        reason="Slurm is not installed here, or may not be started",
    ),
]


@pytest.fixture(scope="module", autouse=True)
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("slurm")
    started = subprocess.run([SCRIPT, "start", folder], capture_output=True, text=True, timeout=90)
    try:
        assert started.returncode == 0, started.stderr
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SLURM_CONF", started.stdout.strip())
            yield
    finally:
        subprocess.run([SCRIPT, "stop", folder], check=True, timeout=30)


def cells(out: Path) -> dict[str, Cell]:
    return {cell.label: cell for cell in Store(out).everything()}


def test_three_models_give_what_they_give_without_a_cluster(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    assert swept("cnn,vit,mixer", here)[0] == 0
    code, said = swept("cnn,vit,mixer", there, "--cluster", "slurm", "--array", "2", "--cpus", "1")
    assert code == 0, said
    assert "3 cells, 3 computed now, 0 failed" in said
    assert (there / "sweep.csv").read_bytes() == (here / "sweep.csv").read_bytes()
    assert len(list((there / "jobs").glob("*_result.pkl"))) == 2
    code, said = swept("cnn,vit,mixer", there, "--cluster", "slurm")
    assert code == 0
    assert "0 computed now" in said
    assert "submitted" not in said


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["scancel", "--signal=USR2", "--name"], id="told to checkpoint"),
        pytest.param(["scontrol", "requeue"], id="killed and queued again by Slurm"),
    ],
)
def test_a_preempted_job_goes_on_where_it_was(tmp_path: Path, command: list[str]) -> None:
    notes, out = tmp_path / "notes", tmp_path / "out"
    models, options = f"cnn,{factory('patient')}", ("--cluster", "slurm", "--array", "1")
    code, said = swept(models, out, *options, "--no-wait", notes=notes)
    assert code == 0, said
    assert not (out / "sweep.csv").exists()
    until(notes.exists)
    stamp = next((out / "cells").iterdir()).stat().st_mtime_ns
    name = job_name(out)
    assert queued(name) == {"RUNNING": 1}
    if command[0] == "scontrol":
        listed = ["squeue", "--noheader", "--format=%A", "--name", name]
        name = subprocess.run(listed, capture_output=True, text=True).stdout.strip()
    subprocess.run([*command, name], check=True)

    code, said = swept(models, out, *options, notes=notes)
    assert code == 0, said
    assert "at work in this folder already" in said
    assert len(notes.read_text().splitlines()) == 2
    assert {label: cell.status for label, cell in cells(out).items()} == {
        "cnn": "ok", "patient": "ok",
    }  # fmt: skip
    assert stamp in {path.stat().st_mtime_ns for path in (out / "cells").iterdir()}
    assert set(pd.read_csv(out / "sweep.csv")["label"]) == {"cnn", "patient"}


def test_what_cancelled_jobs_leave_is_missing(tmp_path: Path) -> None:
    notes, out = tmp_path / "notes", tmp_path / "out"
    models = f"cnn,{factory('patient')}"
    process = started(models, out, "--cluster", "slurm", "--array", "1", notes=notes)
    until(notes.exists)
    subprocess.run(["scancel", "--name", job_name(out)], check=True)
    code, said = ended(process, out)
    assert code == 1, said
    assert "1 cells, 1 computed now, 0 failed, 1 missing" in said
    assert set(cells(out)) == {"cnn"}


def test_what_slurm_refuses_is_said(tmp_path: Path) -> None:
    for options, message in (
        (("--partition", "nowhere"), "invalid partition specified"),
        (("--slurm", "no-such-option=1"), "unrecognized option"),
    ):
        code, said = swept("cnn", tmp_path / "out", "--cluster", "slurm", *options)
        assert code == 2, said
        assert "Traceback" not in said
        assert message in said
