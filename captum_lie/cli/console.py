"""What commands say: tables on standard output, notes and errors on standard error."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from captum_lie.core.validation import is_out_of_memory
from captum_lie.errors import UserError
from captum_lie.results import Measurement

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

    Example:
        >>> try:
        ...     with explained():
        ...         raise FileNotFoundError("There is no folder photos.")
        ... except typer.Exit as left:
        ...     left.exit_code
        2
    """
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_args, **_kwargs: say(
            f"Note: {message}", style="yellow"
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
                say(traceback.format_exc())
            say(message, style="red")
            raise typer.Exit(2) from error


def say(message: str, *, style: str | None = None) -> None:
    """A message on standard error, as it is: no markup, no line broken.

    Example:
        >>> say("[0, 1] are no markup.")
    """
    notes.print(message, style=style, markup=False, highlight=False, soft_wrap=True)


def say_written(paths: Iterable[Path]) -> None:
    """Tell which files were written, on standard error.

    Example:
        >>> say_written([Path("report.html"), Path("lee.csv")])
    """
    notes.print("Wrote " + ", ".join(map(str, paths)), markup=False, soft_wrap=True)


def say_skipped(batches: object) -> None:
    """Tell how many image files could not be read, on standard error.

    Example:
        >>> say_skipped(object())  # none
    """
    skipped = getattr(batches, "skipped", {})
    if skipped:
        notes.print(f"{len(skipped)} unreadable files were left out.", style="yellow")


def say_labels(measurement: Measurement) -> None:
    """Tell which models' labels could not be matched with their classes."""
    for model in measurement.trained:
        if model.subject is not None and model.subject.labels.startswith("cannot"):
            say(
                f"Note: no accuracy of {model.name}: labels {model.subject.labels}.", style="yellow"
            )


def print_lee(result: Measurement) -> None:
    """LEE ± standard error, a row per group and a column per model; controls are in the files."""
    lee = result.table.set_index(["group", "model"])
    models = [model.name for model in result.trained]
    table = Table(title="LEE ± standard error", title_justify="left", box=None)
    table.add_column("group", no_wrap=True)
    for model in models:
        table.add_column(model, justify="right", no_wrap=True)
    for group in dict.fromkeys(result.table["group"]):
        cells = [lee.loc[(group, model)] for model in models]
        table.add_row(str(group), *(f"{c.lee:.2g} ± {c.stderr:.1g}" for c in cells))
    Console().print(table)
    for record in result.trained:
        if record.accuracy is not None:
            stderr = record.accuracy_stderr
            Console().print(
                f"Accuracy of {record.name}: {record.accuracy:.1%}"
                + ("" if stderr is None else f" ± {stderr:.1%}"),
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
