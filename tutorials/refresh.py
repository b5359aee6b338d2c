"""Run the tutorials and write their notebooks.

Each tutorial is a pair: ``NN_name.py`` (jupytext's percent format) is the source that people edit,
and ``NN_name.ipynb`` is what it gives when run, outputs and pictures included.

    python tutorials/refresh.py                # run all, write the notebooks
    python tutorials/refresh.py --only 01      # one of them
    python tutorials/refresh.py --check        # run all, write nothing, compare the cells

With ``CAPTUM_LIE_TUTORIALS=small`` in the environment they use fewer images and samples; that is
what tests do, and ``--check`` is content with it, but a notebook is never written from it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import jupytext
import typer
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from rich.progress import MofNCompleteColumn, Progress

FOLDER = Path(__file__).resolve().parent
SMALL = "CAPTUM_LIE_TUTORIALS"
CELL_TIMEOUT = 300  # seconds
MOST_BYTES = 1_500_000

app = typer.Typer(add_completion=False)

_ABSOLUTE_PATH = re.compile(
    r"(?<![\w./:<])/(?:home|root|tmp|usr|opt|var|Users|work|mnt)/\w|\b[A-Z]:\\"
)
_ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]+|\b0x[0-9a-fA-F]{8,}")
_PROGRESS = re.compile(r"\d+%\||it/s\]|s/it\]")


def sources(only: str = "") -> list[Path]:
    """The tutorials' sources, in order; those whose name contains ``only``."""
    found = [path for path in sorted(FOLDER.glob("[0-9][0-9]_*.py")) if only in path.stem]
    if not found:
        names = ", ".join(path.stem for path in sources()) if only else "none at all"
        raise ValueError(f"no tutorial's name contains {only!r}; there is {names}")
    return found


def read_source(path: Path) -> NotebookNode:
    """The notebook of a source, without outputs; cell names depend on their position alone."""
    notebook: NotebookNode = jupytext.read(path, fmt="py:percent")
    notebook.metadata.clear()
    notebook.metadata.update(
        jupytext={"formats": "ipynb,py:percent"},
        kernelspec={
            "display_name": "Python 3 (ipykernel)",
            "language": "python",
            "name": "python3",
        },
        language_info={"name": "python", "file_extension": ".py"},
    )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for position, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{position:02d}"
    return notebook


def read_notebook(path: Path) -> NotebookNode:
    """A committed notebook with its outputs."""
    notebook: NotebookNode = jupytext.read(path)
    return notebook


def execute(
    notebook: NotebookNode,
    *,
    small: bool | None = None,
    on_cell: Callable[[], Any] | None = None,
) -> NotebookNode:
    """Run a notebook in a fresh kernel and an empty folder; the outputs are written into it.

    Args:
        small: fewer images and samples; by default what the environment says.
        on_cell: called after each code cell.

    Raises:
        CellExecutionError: a cell raised; the message holds the cell and its traceback.
    """
    # Without ipywidgets tqdm, which Captum imports, warns that it has no widget for its bar.
    ignored = [os.environ.get("PYTHONWARNINGS", ""), "ignore:IProgress not found"]
    environment = os.environ | {"PYTHONWARNINGS": ",".join(filter(None, ignored))}
    if small is not None:
        environment[SMALL] = "small" if small else ""
    metadata = notebook.metadata.copy()

    def executed(**_: Any) -> None:
        if on_cell is not None:
            on_cell()

    with TemporaryDirectory() as folder:
        NotebookClient(
            notebook,
            timeout=CELL_TIMEOUT,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
            record_timing=False,
            coalesce_streams=True,
            extra_arguments=["--log-level=ERROR"],
            on_cell_executed=executed,
        ).execute(env=environment)
    notebook.metadata = metadata  # the kernel adds its Python's version
    return notebook


def problems(notebook: NotebookNode) -> list[str]:
    """What must not be in a published notebook: silent cells, warnings, traces of a machine."""
    found = []
    for position, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        if not cell.outputs:
            found.append(f"cell {position} has no output")
        for output in cell.outputs:
            if output.output_type == "error":
                found.append(f"cell {position} raised {output.ename}: {output.evalue}")
            if output.get("name") == "stderr":
                found.append(f"cell {position} wrote to stderr: {output.text.strip()[:300]}")
            text = "\n".join(_texts(output))
            for what, pattern in (
                ("an absolute path", _ABSOLUTE_PATH),
                ("a memory address", _ADDRESS),
                ("a progress bar", _PROGRESS),
            ):
                if match := pattern.search(text):
                    found.append(f"cell {position} shows {what}: {match.group()!r}")
    size = len(written(notebook).encode())
    if size > MOST_BYTES:
        found.append(f"the notebook has {size:,} bytes, more than {MOST_BYTES:,}")
    return found


def differences(source: NotebookNode, committed: NotebookNode) -> list[str]:
    """Where the cells of a committed notebook are not those of its source."""
    if len(source.cells) != len(committed.cells):
        return [f"{len(committed.cells)} cells, the source has {len(source.cells)}"]
    return [
        f"cell {position} differs from the source: {new.source[:60]!r}"
        for position, (new, old) in enumerate(zip(source.cells, committed.cells, strict=True))
        if (new.cell_type, new.source) != (old.cell_type, old.source)
    ]


def written(notebook: NotebookNode) -> str:
    """The text of an ``.ipynb`` file."""
    return str(jupytext.writes(notebook, fmt="ipynb")).rstrip() + "\n"


def _texts(output: NotebookNode) -> list[str]:
    """Everything in an output that people read as text."""
    if output.output_type == "stream":
        return [output.text]
    data = output.get("data", {})
    return [text for kind, text in data.items() if kind.startswith("text/")]


@app.command()
def main(
    only: Annotated[str, typer.Option(help="Part of a tutorial's name, such as 01.")] = "",
    check: Annotated[
        bool, typer.Option("--check", help="Run and compare the cells; write nothing.")
    ] = False,
) -> None:
    """Run the tutorials from their sources and write the notebooks with their outputs."""
    if os.environ.get(SMALL) and not check:
        raise typer.BadParameter(
            f"{SMALL} is set, and published notebooks are full size. Unset it, or use --check."
        )
    try:
        chosen = sources(only)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--only") from error
    notebooks = {path: read_source(path) for path in chosen}
    total = sum(cell.cell_type == "code" for n in notebooks.values() for cell in n.cells)
    failures: list[str] = []
    with Progress(*Progress.get_default_columns(), MofNCompleteColumn()) as progress:
        bar = progress.add_task("", total=total)
        for path, notebook in notebooks.items():
            progress.update(bar, description=path.stem)
            target = path.with_suffix(".ipynb")
            try:
                execute(notebook, on_cell=partial(progress.advance, bar))
            except CellExecutionError as error:
                failures.append(f"{path.name}: {error}")
                continue
            found = problems(notebook)
            if check:
                found += (
                    differences(notebook, read_notebook(target))
                    if target.exists()
                    else ["there is no notebook"]
                )
            failures += [f"{target.name}: {problem}" for problem in found]
            if not check and not found:
                target.write_text(written(notebook), encoding="utf-8")
    for failure in failures:
        typer.echo(failure, err=True)
    if failures:
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
