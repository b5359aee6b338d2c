"""What commands say: tables on standard output, notes and errors on standard error."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from captum_lie.core.validation import is_out_of_memory
from captum_lie.errors import UserError
from captum_lie.studies.measurement import UNTRAINED, Measurement, Subject

notes = Console(stderr=True)

#: What a user can mend: printed as one line, exit code 2, no traceback.
USER_ERRORS = (UserError, OSError)


@dataclass
class _Verbosity:
    """What ``captum-lie --debug`` changes."""

    debug: bool = False


verbosity = _Verbosity()


@contextmanager
def explained() -> Iterator[None]:
    """Errors that a user can mend become one line and exit code 2; warnings become notes.

    Everything else is a bug and shows its traceback. With ``--debug`` the former do, too.
    """
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_args, **_kwargs: notes.print(
            f"Note: {message}", style="yellow", markup=False, highlight=False, soft_wrap=True
        )
        try:
            yield
        except Exception as error:
            if is_out_of_memory(error):
                message = (
                    "Error: out of memory. Lower --batch-size, --internal-batch-size or --size."
                )
            elif isinstance(error, USER_ERRORS):
                message = f"Error: {error}"
            else:
                raise
            if verbosity.debug:
                notes.print(traceback.format_exc(), markup=False, highlight=False, soft_wrap=True)
            notes.print(message, style="red", markup=False, highlight=False, soft_wrap=True)
            raise typer.Exit(2) from error


def say_written(paths: Iterable[Path]) -> None:
    notes.print("Wrote " + ", ".join(map(str, paths)), markup=False, soft_wrap=True)


def say_skipped(batches: object) -> None:
    """Tell how many image files could not be read."""
    skipped = getattr(batches, "skipped", {})
    if skipped:
        notes.print(f"{len(skipped)} unreadable files were left out.", style="yellow")


def say_labels(subjects: Mapping[str, Subject]) -> None:
    """Tell which models' labels could not be matched with their classes."""
    for name, subject in subjects.items():
        if subject.labels.startswith("cannot") and not name.endswith(UNTRAINED):
            notes.print(
                f"Note: no accuracy of {name}: labels {subject.labels}.",
                style="yellow",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )


def print_lee(result: Measurement) -> None:
    """LEE ± standard error, a row per group and a column per model; controls are in the files."""
    lee = result.table.set_index(["group", "model"])
    models = [m for m in dict.fromkeys(result.table["model"]) if not m.endswith(UNTRAINED)]
    table = Table(title="LEE ± standard error", title_justify="left", box=None)
    table.add_column("group", no_wrap=True)
    for model in models:
        table.add_column(model, justify="right", no_wrap=True)
    for group in dict.fromkeys(result.table["group"]):
        cells = [lee.loc[(group, model)] for model in models]
        table.add_row(str(group), *(f"{c.lee:.2g} ± {c.stderr:.1g}" for c in cells))
    Console().print(table)
    for model in models:
        known = result.subjects.get(model)
        if known is not None and known.accuracy is not None:
            Console().print(
                f"Accuracy of {model}: {known.accuracy:.1%}"
                + ("" if known.accuracy_stderr is None else f" ± {known.accuracy_stderr:.1%}"),
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
    for model, found in result.directions.items():
        Console().print(
            f"Worst affine motion of {model}: {found.describe()}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
