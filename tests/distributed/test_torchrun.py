"""``captum-lie measure`` under torchrun: one report, that of one process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

#: 10 images in batches of 4: uneven parts for two processes, and one without any of four.
OPTIONS = (
    "measure", "--model", "cnn", "--limit", "10", "--batch-size", "4", "--groups",
    "rotation,brightness", "--metrics", "eq_t", "--samples", "2", "--pictures", "1",
)  # fmt: skip

pytestmark = pytest.mark.slow


def torchrun(count: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
        str(count), "-m", "captum_lie", *arguments,
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=500)


@pytest.mark.parametrize("count", [2, 4])
def test_several_processes_write_the_report_of_one(tmp_path: Path, count: int) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    command = [sys.executable, "-m", "captum_lie", *OPTIONS, "--out", str(alone)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    result = torchrun(count, *OPTIONS, "--out", str(together))
    assert result.returncode == 0, result.stderr
    assert result.stdout == said
    for name in ("report.html", "lee.csv", "metrics.csv"):
        assert (together / name).read_bytes() == (alone / name).read_bytes()


def test_what_is_wrong_is_said_and_ends_every_process(tmp_path: Path) -> None:
    for options, message in (
        (("--shard", "0/2"), "leave out --shard"),
        (("--model", "nothing"), "No model 'nothing'"),
    ):
        result = torchrun(2, *OPTIONS, *options, "--out", str(tmp_path))
        assert result.returncode != 0
        assert message in result.stderr
        assert "captum_lie/cli" not in result.stderr  # no traceback of ours
