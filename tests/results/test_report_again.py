"""A report from stored results is the report, byte for byte, in another process, too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.command_line import refused, run

#: Drawn by a process that can neither run a model nor load one.
REDRAW = """
import sys, torch
from captum_lie.cli.application import app
def forbidden(*_args, **_options): raise AssertionError("a report computes nothing")
torch.nn.Module.__call__ = forbidden
app(["report", sys.argv[1], "--out", sys.argv[2]], standalone_mode=False)
"""


def redrawn(folder: Path, out: Path) -> None:
    subprocess.run([sys.executable, "-c", REDRAW, str(folder), str(out)], check=True)


def test_measure(tmp_path: Path) -> None:
    folder, again = tmp_path / "first", tmp_path / "again"
    result = run(
        "measure", "--model", "cnn", "--model", "vit", "--limit", "6", "--groups",
        "rotation,brightness", "--metrics", "consistency", "--out", folder,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    redrawn(folder, again)
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["lee.csv", "lee.json", "measurement.safetensors", "metrics.csv", "report.html"]
    for name in names:
        assert (again / name).read_bytes() == (folder / name).read_bytes(), name


def test_layers(tmp_path: Path) -> None:
    folder, again = tmp_path / "first", tmp_path / "again"
    result = run("layers", "--model", "cnn", "--limit", "3", "--pictures", "1", "--out", folder)
    assert result.exit_code == 0, result.output
    redrawn(folder, again)
    drawn = [path.name for path in folder.iterdir() if path.name != "layers.safetensors"]
    assert {"layers.html", "layers.csv", "maps_translation_x_cnn_0.png"} <= set(drawn)
    for name in drawn:
        assert (again / name).read_bytes() == (folder / name).read_bytes(), name


def test_what_cannot_be_drawn_says_so(tmp_path: Path) -> None:
    message = refused("report", tmp_path)
    assert "measurement.safetensors" in message
    assert "captum-lie measure" in message
    (tmp_path / "measurement.safetensors").write_bytes(b"\0" * 100)
    assert "damaged or cut off" in refused("report", tmp_path)
    assert "Say with --out" in refused("report", tmp_path, tmp_path)
