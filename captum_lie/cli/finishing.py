"""The end of a command: a measurement is stored, reported and shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from captum_lie.cli.console import print_lee, say_written
from captum_lie.results import Measurement, save
from captum_lie.show.report import render_json, write_report

#: What a report can be drawn from again.
MEASUREMENT, LAYERS = "measurement.safetensors", "layers.safetensors"
DIGITS = "digits.safetensors"


@contextmanager
def reserved(folder: Path) -> Iterator[None]:
    """Make a folder for what is to come: rather now than after the work.

    Where the work fails, a folder that was made for it goes again.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        if made and not any(folder.iterdir()):
            folder.rmdir()
        raise


def finish(measurement: Measurement, out: Path, *, json: bool, raw_maps: bool = False) -> None:
    """Store a measurement, write its report, and print its table or JSON."""
    stored = save(measurement, out / MEASUREMENT)
    written = write_report(measurement, out, raw_maps=raw_maps)
    if json:
        print(render_json(measurement))
    else:
        print_lee(measurement)
        say_written([*written, stored])
