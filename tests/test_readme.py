"""The README's Python runs as it stands, in order, in one namespace."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_python_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    assert len(blocks) >= 2
    namespace: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)
    assert namespace["maps"].shape == (16, 3, 32, 32)
    total = namespace["blame"].sum((1, 2, 3))
    assert (total - namespace["scores"][:, 1]).abs().max() < 1e-4 * total.abs().max()
    assert list(namespace["table"]["group"]) == ["rotation", "scale"]
    assert (tmp_path / "cnn-audit" / "audit.html").is_file()


def test_pictures_exist() -> None:
    for target in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (Path(__file__).parents[1] / target).is_file(), target
