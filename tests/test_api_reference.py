"""The API reference: every public name is documented, with an example that runs, and rendered."""

from __future__ import annotations

import importlib
import inspect
import os
import subprocess
import sys
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
EXTRAS = {"captum_lie_onnx": "onnxruntime", "captum_lie_timm": "timm"}
MODULES = (
    "captum_lie",
    "captum_lie.errors",
    "captum_lie.examples",
    *(f"captum_lie.extending.{name}" for name in ("checks", "commands", "metrics", "tensors")),
    "captum_lie.images",
    "captum_lie.layerwise",
    "captum_lie.layouts",
    "captum_lie.metrics",
    *EXTRAS,
)


def public(module: str) -> dict[str, Any]:
    """Functions and classes by name."""
    if module in EXTRAS:
        pytest.importorskip(EXTRAS[module])
    found = importlib.import_module(module)
    things = {name: getattr(found, name) for name in found.__all__}
    return {n: t for n, t in things.items() if inspect.isclass(t) or inspect.isfunction(t)}


def has_example(thing: Any) -> bool:
    members = vars(thing).values() if inspect.isclass(thing) else ()
    return any(">>>" in (inspect.getdoc(each) or "") for each in (thing, *members))


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_has_a_docstring_and_an_example(module: str) -> None:
    names = public(module)
    assert names
    assert [name for name, thing in names.items() if not thing.__doc__] == []

    def needs_none(thing: Any) -> bool:
        # Results are shown by what returns them, exceptions by what raises them.
        return inspect.isclass(thing) and (is_dataclass(thing) or issubclass(thing, Exception))

    without = [n for n, t in names.items() if not has_example(t) and not needs_none(t)]
    assert without == []


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_holds_every_name(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    site = tmp_path / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(site)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pages = "\n".join(path.read_text(encoding="utf-8") for path in site.rglob("*.html"))
    missing = [
        f"{module}.{name}"
        for module in MODULES
        for name in public(module)
        if f'id="{module}.{name}"' not in pages
    ]
    assert missing == []
    for role in (":class:`", ":func:`", ":meth:`", ":math:`"):
        assert role not in pages
