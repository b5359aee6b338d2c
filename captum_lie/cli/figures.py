"""``captum-lie figures``: the paper's figures from the results of a sweep alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from captum_lie.cli import options as o
from captum_lie.cli.console import explained, say, say_written
from captum_lie.cli.inputs import names_in
from captum_lie.errors import InvalidValueError
from captum_lie.results.cells import read_cells
from captum_lie.show.figures import (
    BY_DEFAULT,
    FigureOptions,
    Sweep,
    draw_figures,
    read_slices,
    write_figure,
)


def figures(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that sweep wrote.")],
    out: Annotated[Path, typer.Option(help="Folder for the figures.")],
    which: Annotated[
        str, typer.Option(help="Figures of the paper, and beyond it, with commas between.")
    ] = ",".join(BY_DEFAULT),
    relative: Annotated[
        bool, typer.Option("--relative", help="Draw relative LEE in place of LEE.")
    ] = False,
    images: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Set of images to draw; by default, of each model, that on which its accuracy is "
            "known.",
        ),
    ] = None,
    slices: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="TOML file with the pairs of models of figure 6, instead of those that ship: "
            '[[slice]] with name = "..." and pairs = [["before", "after"]].',
        ),
    ] = None,
    seed: o.Seed = 0,
) -> None:
    """Draw the paper's figures from a sweep, each as PNG, SVG and CSV, without computing anything.

    A figure whose data the sweep does not hold is left out, with a line that says what would give
    it. Exit code 0: at least one was drawn; 2: none.

    Examples:

      captum-lie figures sweep --out figures

      captum-lie figures sweep --out figures --which 1,5,9 --relative
    """
    with explained():
        options = FigureOptions(
            relative, images, read_slices(slices) if slices is not None else (), seed
        )
        sweep = Sweep(read_cells(folder), options)
        out.mkdir(parents=True, exist_ok=True)
        written: list[Path] = []
        for drawn in draw_figures(sweep, names_in(which)):
            if drawn.missing:
                say(f"Left out {drawn.name}: {drawn.missing}.", style="yellow")
            else:
                written += write_figure(drawn, out)
        if not written:
            raise InvalidValueError(f"{folder} holds the data of none of these figures.")
        say_written(written)
