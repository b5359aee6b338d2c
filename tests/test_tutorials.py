"""Tutorials: committed notebooks are what their sources give, and the sources run."""

from __future__ import annotations

from pathlib import Path

import pytest
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
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
    pictures = [o for c in code for o in c.outputs if "image/png" in o.get("data", {})]
    assert len(pictures) >= 3


@each_source
def test_half_is_prose(source: Path) -> None:
    kinds = [cell.cell_type for cell in refresh.read_source(source).cells]
    assert 25 <= len(kinds) <= 40
    assert 0.4 <= kinds.count("markdown") / len(kinds) <= 0.65
    assert kinds[0] == "markdown"


@each_source
def test_tutorial_is_listed(source: Path) -> None:
    assert source.stem in (source.parent / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
@each_source
def test_source_runs_small(source: Path) -> None:
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
