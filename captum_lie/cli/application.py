"""The command line: ``captum-lie demo``, ``measure``, ``layers``, and what adapters add.

Adapters announce commands under the entry point group ``captum_lie.commands``; this library knows
none of them by name.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Annotated

import typer

from captum_lie import __version__
from captum_lie.cli.console import verbosity
from captum_lie.cli.demo import demo
from captum_lie.cli.figures import figures
from captum_lie.cli.layers import layers
from captum_lie.cli.measure import measure_command
from captum_lie.cli.report import report
from captum_lie.cli.rotated_digits import rotated_digits_command
from captum_lie.cli.sweep import sweep_command

app = typer.Typer(
    help="Measure how far a vision model is from being equivariant, "
    "and which pixels and layers are to blame.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
app.command()(demo)
app.command("measure")(measure_command)
app.command()(layers)
app.command()(report)
app.command("sweep")(sweep_command)
app.command()(figures)
app.command("rotated-digits")(rotated_digits_command)
for _entry in sorted(entry_points(group="captum_lie.commands")):
    app.command(_entry.name)(_entry.load())


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of every error.")
    ] = False,
) -> None:
    verbosity.debug = debug
    if version:
        print(__version__)
        raise typer.Exit


def main() -> None:
    """Entry point of the console script."""
    app()
