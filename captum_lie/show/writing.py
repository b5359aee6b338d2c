"""A picture and the numbers in it, as files beside each other."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from captum_lie.results.files import write_atomically, write_bytes_atomically


def write_picture(stem: Path, figure: Figure, table: pd.DataFrame, *, dpi: int = 150) -> list[Path]:
    """Write a figure as PNG and SVG and its table as CSV, each whole or not at all.

    The same figure gives the same bytes: none of them holds a date.

    Args:
        stem: the files' path without an ending.

    Raises:
        OSError: the folder cannot be written to.
    """
    written = []
    for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=dpi, metadata=metadata)
        path = stem.with_name(f"{stem.name}.{kind}")
        write_bytes_atomically(path, buffer.getvalue())
        written.append(path)
    path = stem.with_name(f"{stem.name}.csv")
    write_atomically(path, table.to_csv(index=False))
    return [*written, path]
