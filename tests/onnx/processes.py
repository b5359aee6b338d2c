"""Which processes this one has started."""

from __future__ import annotations

import os
from pathlib import Path


def children() -> set[int]:
    """Processes whose parent is this one, zombies included."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[1]) == os.getpid():
                found.add(int(entry.name))
    return found
