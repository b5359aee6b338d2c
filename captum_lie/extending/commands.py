"""What a command of the program ``captum-lie`` reads and says.

A command is a function with Typer's annotations, those of :mod:`captum_lie.extending.options`
among them, whose work runs within :func:`explained`:

>>> from captum_lie.extending import options
>>> def count(images: options.Images = "builtin") -> None:
...     "Count images."
...     with explained():
...         print(len(find_images(images, limit=4)))
>>> count()
4

Announced in ``pyproject.toml`` as ``count = "my_adapter.commands:count"`` under
``[project.entry-points."captum_lie.commands"]``, it is run by ``captum-lie count``.
"""

from captum_lie.cli.console import explained, notes, say_skipped, say_written
from captum_lie.cli.inputs import (
    choose_device,
    find_models,
    parse_groups,
    parse_metrics,
    parse_normalisation,
    parse_size,
)
from captum_lie.studies.sources import find_images

__all__ = [
    "choose_device",
    "explained",
    "find_images",
    "find_models",
    "notes",
    "parse_groups",
    "parse_metrics",
    "parse_normalisation",
    "parse_size",
    "say_skipped",
    "say_written",
]
