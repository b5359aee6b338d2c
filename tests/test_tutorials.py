"""Tutorials: committed notebooks are what their sources give, and the sources run."""

from __future__ import annotations

import re
from base64 import b64decode
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from PIL import Image
from typer.testing import CliRunner

from tutorials import refresh

SOURCES = refresh.sources()
each_source = pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)


def committed(source: Path) -> NotebookNode:
    return refresh.read_notebook(source.with_suffix(".ipynb"))


@each_source
def test_notebook_has_the_cells_of_its_source(source: Path) -> None:
    assert refresh.differences(refresh.read_source(source), committed(source)) == []


@each_source
def test_outputs_are_fit_to_publish(source: Path) -> None:
    notebook = committed(source)
    assert refresh.problems(notebook) == []
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))


@each_source
def test_cells_that_draw_have_their_pictures_and_no_others(source: Path) -> None:
    drawing = re.compile(r"plt\.show\(\)|\bplot_\w+\(|\.plot\(")
    found = 0
    for position, cell in enumerate(committed(source).cells):
        data = [output.get("data", {}) for output in cell.get("outputs", [])]
        pictures = [each["image/png"] for each in data if "image/png" in each]
        draws = cell.cell_type == "code" and drawing.search(cell.source) is not None
        assert draws == bool(pictures), position
        for picture in pictures:
            with Image.open(BytesIO(b64decode(picture))) as image:
                pixels = np.asarray(image.convert("L"))
            assert pixels.std() > 5, position  # something is drawn
        found += len(pictures)
    assert found


@each_source
def test_code_is_introduced(source: Path) -> None:
    """A title, then prose that says what comes, before every cell of code or two."""
    cells = refresh.read_source(source).cells
    kinds = [cell.cell_type for cell in cells]
    titles = [
        line
        for cell in cells
        if cell.cell_type == "markdown"
        for line in cell.source.split("\n")
        if line.startswith("# ")
    ]
    assert cells[0].source.startswith(f"{titles[0]}\n")
    assert len(titles) == 1
    assert kinds[-1] == "markdown"  # ends in what was seen
    assert ["code"] * 3 not in [kinds[i : i + 3] for i in range(len(kinds))]


@each_source
def test_tutorial_is_listed(source: Path) -> None:
    assert source.stem in (source.parent / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
@each_source
def test_source_runs_small(source: Path) -> None:
    if "import onnxruntime" in source.read_text(encoding="utf-8"):
        pytest.importorskip("onnxruntime")
    notebook = refresh.execute(refresh.read_source(source), small=True)
    assert refresh.problems(notebook) == []


def write(path: Path, *code: str) -> Path:
    path.write_text("".join(f"# %%\n{cell}\n\n" for cell in code), encoding="utf-8")
    return path


@pytest.mark.slow
def test_problems_are_found(tmp_path: Path) -> None:
    source = write(
        tmp_path / "01_bad.py",
        "x = 1",
        "import warnings\nwarnings.warn('careful')",
        "print('/home/someone/x')",
        "object()",
        "print(' 50%|#####')",
    )
    notebook = refresh.execute(refresh.read_source(source), small=True)
    found = refresh.problems(notebook)
    for position, what in enumerate(
        ("has no output", "wrote to stderr", "absolute path", "memory address", "progress bar")
    ):
        assert any(f"cell {position} " in f and what in f for f in found), (what, found)
    other = refresh.read_source(write(source, "x = 2", *["pass"] * 4))
    assert len(refresh.differences(other, notebook)) == 5
    assert refresh.differences(notebook, notebook) == []


@pytest.mark.slow
def test_command_writes_checks_and_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refresh, "FOLDER", tmp_path)
    monkeypatch.delenv(refresh.SMALL, raising=False)
    source = write(tmp_path / "01_good.py", "import os\nprint(os.environ.get('CAPTUM_LIE_X'))")

    def run(*arguments: str) -> int:
        return CliRunner().invoke(refresh.app, arguments).exit_code

    assert run("--check") == 1  # there is no notebook yet
    assert run() == 0
    first = source.with_suffix(".ipynb").read_bytes()
    assert run("--check") == 0
    assert run("--only", "01") == 0
    assert source.with_suffix(".ipynb").read_bytes() == first
    write(source, "print(2)")
    assert run("--check") == 1
    write(source, "1 / 0")
    assert run() == 1
    assert source.with_suffix(".ipynb").read_bytes() == first
    assert run("--only", "02") == 2
    monkeypatch.setenv(refresh.SMALL, "small")
    assert run() == 2


@pytest.mark.slow
def test_a_cell_that_raises_is_reported(tmp_path: Path) -> None:
    source = write(tmp_path / "01_bad.py", "1 / 0")
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        refresh.execute(refresh.read_source(source))
