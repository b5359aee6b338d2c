"""``captum-lie report``: draw the report of stored results again, without computing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from captum_lie.cli.console import explained, say_written
from captum_lie.cli.finishing import DIGITS, LAYERS, MEASUREMENT, finish
from captum_lie.errors import InvalidValueError
from captum_lie.results import DigitsStudy, Measurement, load, merge
from captum_lie.show.digits import write_digits
from captum_lie.show.layer_report import write_layer_report


def report(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR...",
            help="Folders that measure, demo, layers or rotated-digits wrote; several "
            "are shards of one measurement and are merged.",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report; by default the only DIR.")
    ] = None,
    raw_maps: Annotated[
        bool, typer.Option("--raw-maps", help="Draw maps of large images pixel by pixel.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Draw a report again from its stored results, without computing anything.

    Examples:

      captum-lie report captum-lie-report

      captum-lie report shard0 shard1 --out whole
    """
    with explained():
        if out is None:
            if len(folders) > 1:
                raise InvalidValueError("Say with --out where the merged report shall go.")
            out = folders[0]
        out_folder = out
        measured = [folder for folder in folders if (folder / MEASUREMENT).is_file()]
        layered = [folder for folder in folders if (folder / LAYERS).is_file()]
        digits = [folder for folder in folders if (folder / DIGITS).is_file()]
        if not measured and not layered and not digits:
            raise InvalidValueError(
                f"{', '.join(map(str, folders))}: neither {MEASUREMENT} nor {LAYERS} is there, "
                f"nor {DIGITS}. Give a folder that captum-lie measure, demo, layers or "
                "rotated-digits wrote."
            )
        out_folder.mkdir(parents=True, exist_ok=True)
        if measured:
            shards = [load(folder / MEASUREMENT, Measurement) for folder in measured]
            whole = merge(shards) if len(shards) > 1 else shards[0]
            finish(whole, out_folder, json=json, raw_maps=raw_maps)
        for folder in layered:
            say_written(write_layer_report(load(folder / LAYERS, Measurement), out_folder))
        for folder in digits:
            say_written(write_digits(load(folder / DIGITS, DigitsStudy), out_folder))
