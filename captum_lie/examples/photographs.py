"""Photographs that scikit-image and scikit-learn bring along: found, never shipped or downloaded.

Models of real size want real photographs. Those two libraries carry some inside their packages;
``python -m captum_lie.examples.photographs FOLDER`` cuts squares from them:

>>> from tempfile import TemporaryDirectory
>>> with TemporaryDirectory() as folder:
...     written = write_photographs(Path(folder), names=list(find_photographs())[:1])
>>> len(written) in (0, 2)  # none where neither library is installed
True
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

from captum_lie.errors import InvalidValueError

#: By library: where its photographs lie, and which of them are photographs of scenes and things.
_HELD = {
    "skimage": (
        "data",
        ("astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png",
         "grass.png", "gravel.png", "hubble_deep_field.jpg", "moon.png", "motorcycle_left.png",
         "rocket.jpg"),
    ),
    "sklearn": ("datasets/images", ("china.jpg", "flower.jpg")),
}  # fmt: skip

#: Side of each square, as a share of the photograph's shorter side.
SHARE = 0.75


def find_photographs() -> dict[str, Path]:
    """The files of the photographs that are installed, by name, without importing the libraries.

    >>> all(path.is_file() for path in find_photographs().values())
    True
    """
    found: dict[str, Path] = {}
    for library, (folder, files) in _HELD.items():
        spec = find_spec(library)
        for place in (spec.submodule_search_locations or []) if spec else []:
            paths = [Path(place) / folder / file for file in files]
            found |= {path.stem: path for path in paths if path.is_file()}
    return found


def squares(photograph: Image.Image) -> Iterator[Image.Image]:
    """Two squares of three quarters of the shorter side: from its first corner and its last.

    >>> [square.size for square in squares(Image.new("RGB", (80, 40)))]
    [(30, 30), (30, 30)]
    """
    width, height = photograph.size
    side = round(SHARE * min(width, height))
    yield photograph.crop((0, 0, side, side))
    yield photograph.crop((width - side, height - side, width, height))


def write_photographs(folder: Path, names: Sequence[str] | None = None) -> list[Path]:
    """Cut two squares from each photograph into a folder, as RGB in PNG files.

    Args:
        names: of :func:`find_photographs`; all of them by default. With both libraries there are
            14, hence 28 squares. Two of one photograph are no independent draws.

    Returns:
        The files written, in order.

    Raises:
        ValueError: a name that is not among them.
    """
    known = find_photographs()
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in known if names is None else names:
        if name not in known:
            raise InvalidValueError(
                f"There is no photograph {name!r}; installed: {', '.join(known) or 'none'}. "
                "They come with scikit-image and scikit-learn."
            )
        with Image.open(known[name]) as photograph:
            for i, square in enumerate(squares(photograph.convert("RGB"))):
                written.append(folder / f"{name}_{i}.png")
                square.save(written[-1])
    return written


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Usage: python -m captum_lie.examples.photographs FOLDER")
    print(f"{len(write_photographs(Path(sys.argv[1])))} photographs in {sys.argv[1]}")
