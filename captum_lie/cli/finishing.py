"""The end of a command: a measurement is stored, reported and shown."""

from __future__ import annotations

from pathlib import Path

from captum_lie.cli.console import print_lee, say_written
from captum_lie.results import Measurement, save
from captum_lie.show.report import render_json, write_report

#: What a report can be drawn from again.
MEASUREMENT, LAYERS = "measurement.safetensors", "layers.safetensors"


def finish(measurement: Measurement, out: Path, *, json: bool, raw_maps: bool = False) -> None:
    """Store a measurement, write its report, and print its table or JSON."""
    stored = save(measurement, out / MEASUREMENT)
    written = write_report(measurement, out, raw_maps=raw_maps)
    if json:
        print(render_json(measurement))
    else:
        print_lee(measurement)
        say_written([*written, stored])
