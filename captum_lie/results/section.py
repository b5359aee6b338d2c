"""A part that an adapter adds to a report."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Section:
    """A heading and HTML below it; a leading one stands at the top of the report."""

    title: str
    html: str
    leading: bool = False
