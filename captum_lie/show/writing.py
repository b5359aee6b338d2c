"""A picture and the numbers in it, as files beside each other."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Literal

import pandas as pd
from matplotlib.figure import Figure

from captum_lie.results.files import write_atomically, write_bytes_atomically


def encoded(figure: Figure, kind: Literal["png", "svg"], *, dpi: int) -> bytes:
    """A figure as a file, the same for the same figure: it holds neither a version nor a date."""
    buffer = io.BytesIO()
    unknown = {"png": "Software", "svg": "Date"}[kind]
    figure.savefig(buffer, format=kind, dpi=dpi, metadata={unknown: None})
    return buffer.getvalue()


def write_picture(stem: Path, figure: Figure, table: pd.DataFrame, *, dpi: int = 150) -> list[Path]:
    """Write a figure as PNG and SVG and its table as CSV, each whole or not at all.

    Args:
        stem: the files' path without an ending.

    Raises:
        OSError: the folder cannot be written to.
    """
    png, svg, csv = (stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "svg", "csv"))
    write_bytes_atomically(png, encoded(figure, "png", dpi=dpi))
    write_bytes_atomically(svg, encoded(figure, "svg", dpi=dpi))
    write_atomically(csv, table.to_csv(index=False))
    return [png, svg, csv]
