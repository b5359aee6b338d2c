"""The adapter of the documentation, written down, installed and used."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pandas as pd
import pytest

from captum_lie._compat import tomllib

PAGE = Path(__file__).parents[1] / "docs" / "api" / "extending.md"
BLOCK = re.compile(r'```(?:python|toml) title="(.*?)"\n(.*?)```', flags=re.S)
USE = """
from pathlib import Path
from importlib.metadata import entry_points
from typer.testing import CliRunner
from captum_lie.cli.application import app

for arguments in (
    ["tiny", "--model", "tiny:net", "--limit", "2"],
    ["tiny", "--model", "tiny:other"],
    ["layers", "--model", "tiny:net", "--limit", "2", "--pictures", "0", "--out", "layers"],
):
    result = CliRunner().invoke(app, arguments)
    print(result.exit_code, " ".join(result.output.split()))
(entry,) = entry_points(group="captum_lie.demo", name="tiny")
print(entry.load()(Path("layers")).title)
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of installed packages, with the documented one."""
    files = dict(BLOCK.findall(PAGE.read_text(encoding="utf-8")))
    points = tomllib.loads(files.pop("pyproject.toml"))["project"]["entry-points"]
    assert len(files) == len(points) == 3
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    about = tmp_path / "captum_lie_tiny-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: captum-lie-tiny\nVersion: 1.0\n")
    lines = [f"[{group}]\n{k} = {v}" for group, each in points.items() for k, v in each.items()]
    (about / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.mark.slow
def test_the_documented_adapter_works(site: Path, tmp_path: Path) -> None:
    assert not entry_points(name="tiny")  # the test's own process knows nothing of it
    done = subprocess.run(
        [sys.executable, "-c", USE],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(site), *filter(None, sys.path)])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    used, refused, layers, title = done.stdout.splitlines()
    assert re.fullmatch(r"0 image 0: class \d image 1: class \d", used)
    assert refused.startswith("2 Error: No model 'tiny:other'.")
    assert "tiny: the only name is tiny:net" in refused
    assert layers.startswith("0 "), layers
    table = pd.read_csv(tmp_path / "layers" / "layers.csv").set_index("module")
    assert table.loc["model.turn", "output_layout"] == "nhwc"
    assert title == "A tiny network"
    assert (tmp_path / "layers" / "tiny.csv").read_text().startswith("model,parameters\n")
