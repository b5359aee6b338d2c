"""Tables that ship beside the code, as comma-separated values with a header."""

from __future__ import annotations

import csv
from importlib.resources import files


def read(name: str) -> list[dict[str, str]]:
    """The rows of a table in this package, by column.

    Example:
        >>> read("kinds.csv")[0]
        {'module': 'beit', 'kind': 'transformer'}
    """
    with files(__package__).joinpath(name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))
