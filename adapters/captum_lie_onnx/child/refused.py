"""Files that will not be opened."""

from __future__ import annotations


class Refused(ValueError):
    """A file that will not be opened, and why."""
