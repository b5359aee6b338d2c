"""CONTRIBUTING.md: its recipes run as they stand, and its fast loop names what there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_the_recipes_run() -> None:
    blocks = re.findall(r"```python\n(.*?)```", TEXT, flags=re.S)
    assert len(blocks) == 5
    namespace: dict[str, Any] = {"__name__": "recipes"}
    for block in blocks:
        assert "assert" in block
        exec(compile(block, "CONTRIBUTING.md", "exec"), namespace)


def test_the_files_that_it_names_are_there() -> None:
    paths = re.findall(r"`((?:captum_lie|tests|docs|adapters)/[\w/.]+\w)`", TEXT)
    loop = re.search(r"```console\n(.*?)```", TEXT, flags=re.S)
    assert loop is not None
    paths += re.findall(r"\b(?:captum_lie|tests)\b[\w/.]*", loop.group(1))
    assert len(paths) > 20
    assert [path for path in paths if not (ROOT / path).exists()] == []
