"""Pairs of models that differ in one respect, from a TOML file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from captum_lie._compat import tomllib
from captum_lie.errors import InvalidValueError

#: The file that ships: the paper's comparisons, and what stands in for them without a download.
SHIPPED = Path(__file__).with_name("slices.toml")


@dataclass(frozen=True)
class Slice:
    """One respect in which models differ.

    Attributes:
        name: what differs.
        pairs: models before and after, by label or name.
    """

    name: str
    pairs: tuple[tuple[str, str], ...]


def read_slices(path: Path = SHIPPED) -> tuple[Slice, ...]:
    """Read ``[[slice]]`` tables, each with a ``name`` and ``pairs`` of two models.

    Raises:
        OSError: the file cannot be read.
        ValueError: not TOML, or not of that form.

    Example:
        >>> [one.name for one in read_slices()]
        ['blur pool', 'model size', 'data size', 'training recipe']
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidValueError(f"{path} is not a TOML file: {error}.") from error
    try:
        return tuple(
            Slice(str(one["name"]), tuple((str(a), str(b)) for a, b in one["pairs"]))
            for one in content["slice"]
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidValueError(
            f'{path} does not hold slices: write [[slice]] with name = "..." and '
            'pairs = [["before", "after"], ...].'
        ) from error
