"""How the site reads docstrings: their reST roles become links, their constants' comments text.

A Griffe extension. Docstrings are written for ``help()``; Markdown knows no roles.
"""

from __future__ import annotations

import re
from itertools import takewhile
from typing import Any

import griffe

_ROLE = re.compile(r":(class|func|meth|mod|data|attr|math):`([^`]+)`")


class ReadableDocstrings(griffe.Extension):
    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Every docstring of a package, once all its names are known."""
        _rewrite(pkg)


def _rewrite(obj: griffe.Object) -> None:
    if obj.is_attribute and not obj.docstring:
        obj.docstring = _comment_above(obj)
    if obj.docstring:
        text = _ROLE.sub(lambda role: _link(obj, *role.groups()), obj.docstring.value)
        obj.docstring.value = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)
    for member in obj.members.values():
        if not member.is_alias:
            _rewrite(member)  # type: ignore[arg-type]


def _link(obj: griffe.Object, role: str, name: str) -> str:
    """Code that links to what the role names, wherever the site shows it."""
    if role == "math":
        return f"``{name}``"
    shown = name.rpartition(".")[2] if name.startswith("~") else name
    name = name.removeprefix("~")
    first, dot, rest = name.partition(".")
    try:
        path = obj.resolve(first) + dot + rest
    except griffe.NameResolutionError:
        path = name
    return f'<autoref identifier="{path}" optional><code>{shown}</code></autoref>'


def _comment_above(obj: griffe.Object) -> griffe.Docstring | None:
    """The ``#:`` lines before a constant."""
    if obj.lineno is None:
        return None
    above = reversed(obj.lines_collection[obj.filepath][: obj.lineno - 1])
    lines = [line.strip()[2:].strip() for line in takewhile(lambda s: s.strip()[:2] == "#:", above)]
    return griffe.Docstring("\n".join(reversed(lines)), parent=obj) if lines else None
