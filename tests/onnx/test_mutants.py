"""Two hundred broken variants of valid files: each audit ends, says why in a line, and leaves no
half of a report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
from typer.testing import CliRunner

pytest.importorskip("onnxruntime")

from captum_lie.cli.application import app
from captum_lie.examples import load_images, load_model
from captum_lie_onnx import export, quantize
from tests.onnx import mutants

REPORT = ["audit.csv", "audit.html", "audit.json", "junit.xml"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("valid")
    images = load_images(16)[0]
    valid = export(load_model("cnn"), images[:2], folder / "cnn.onnx")
    return [valid, quantize(valid, folder / "int8.onnx", "static", images)]


def audited(first: int, stop: int, folder: Path, files: list[Path]) -> list[dict[str, Any]]:
    """What a process of its own says of each mutant, and last of what it took."""
    command = [sys.executable, mutants.__file__, str(first), str(stop), str(folder)]
    done = subprocess.run(
        [*command, *map(str, files)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=mutants.SECONDS * (stop - first),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def hold(found: list[dict[str, Any]], count: int) -> None:
    """What must be true of every mutant."""
    *runs, took = found
    assert len(runs) == count
    for run in runs:
        assert run["bug"] is None, (run["seed"], run["kind"], run["bug"])
        assert run["exit_code"] in (0, 1, 2), run
        assert "Traceback" not in run["output"], run
        assert run["seconds"] < mutants.SECONDS, run
        assert run["files"] == ([] if run["exit_code"] == 2 else REPORT), run
        errors = [line for line in run["output"].splitlines() if line.startswith("Error: ")]
        assert len(errors) == (run["exit_code"] == 2), run
    # One child at a time: the largest of them and of this process are no less than any sum.
    assert took["peak"] < mutants.MEMORY, took
    assert min(took["of"]) > 10**7, took  # both were seen


def test_mutants_end_in_an_exit_code(tmp_path: Path, files: list[Path]) -> None:
    found = audited(0, 20, tmp_path, files)
    hold(found, 20)
    assert {run["exit_code"] for run in found[:-1]} >= {0, 2}  # some damage does not matter
    assert {run["kind"] for run in found[:-1]} == set(mutants.KINDS)


@pytest.mark.slow
def test_two_hundred_mutants_end_in_an_exit_code(tmp_path: Path, files: list[Path]) -> None:
    hold(audited(0, 200, tmp_path, files), 200)


def test_mutants_are_the_same_for_the_same_seed_and_others_for_another(files: list[Path]) -> None:
    for file in files:
        content = file.read_bytes()
        found = [mutants.mutant(content, seed)[1] for seed in range(70)]
        assert found == [mutants.mutant(content, seed)[1] for seed in range(70)]
        assert sum(one == content for one in found) <= 3
        assert len(set(found)) > 60


def test_the_valid_files_pass_the_same_command(tmp_path: Path, files: list[Path]) -> None:
    for file in files:
        onnx.checker.check_model(str(file))
        out = tmp_path / file.stem
        result = CliRunner().invoke(app, ["audit", str(file), "--out", str(out), *mutants.QUICK])
        assert result.exit_code == 0, result.output
        assert sorted(p.name for p in out.iterdir()) == REPORT
