"""``captum-lie measure`` under torchrun writes what one process writes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

OPTIONS = (
    "measure", "--model", "cnn", "--limit", "12", "--batch-size", "4", "--groups", "rotation",
    "--no-control", "--metrics", "consistency", "--pictures", "1", "--out",
)  # fmt: skip


@pytest.mark.slow
def test_two_processes_write_what_one_writes(tmp_path: Path) -> None:
    together, alone = tmp_path / "together", tmp_path / "alone"
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for start, out in ((launch, together), ([], alone)):
        command = [sys.executable, *start, "-m", "captum_lie", *OPTIONS, str(out)]
        subprocess.run(command, check=True, env=environment, capture_output=True)
    for name in ("lee.csv", "metrics.csv"):
        assert (together / name).read_bytes() == (alone / name).read_bytes()
