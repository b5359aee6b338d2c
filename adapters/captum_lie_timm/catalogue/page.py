"""The page on the paper's models, written for the installed timm."""

from __future__ import annotations

from collections import Counter
from importlib.resources import files

import jinja2
import timm
from timm.models import get_deprecated_models

from captum_lie_timm.catalogue.kinds import KINDS
from captum_lie_timm.catalogue.paper import (
    COLLECTIONS,
    FOUND_BY,
    Entry,
    collection,
    rows,
    unresolved,
)


def page() -> str:
    """In Markdown: the collections, what does not resolve, and which names mean something else now.

    Example:
        >>> print(page().splitlines()[0])
        # The paper's models
    """
    text = files(__package__).joinpath("page.md.j2").read_text(encoding="utf-8")
    template: jinja2.Template = jinja2.Template(text, trim_blocks=True, keep_trailing_newline=True)
    entries = {name: collection(name) for name in COLLECTIONS}
    known = {row.paper_name: row.found_by for row in rows("paper")}
    return template.render(
        timm=timm.__version__,
        collections=COLLECTIONS,
        totals={name: len(rows(name)) for name in COLLECTIONS},
        entries=entries,
        kinds={kind: [_count(kind, found) for found in entries.values()] for kind in KINDS[:-1]},
        found_by=FOUND_BY,
        found=Counter(known[entry.paper_name] for entry in entries["paper"]),
        unresolved=unresolved("paper"),
        changed=[(e, today) for e in entries["paper"] if (today := meaning_today(e)) != e.name],
        same=sum(entry.name.split(".")[0] == entry.paper_name for entry in entries["paper"]),
    )


def meaning_today(entry: Entry) -> str:
    """What timm loads today under the paper's name; the model's own name where it knows none.

    Example:
        >>> meaning_today(next(e for e in collection() if e.paper_name == "resnet34"))
        'resnet34.a1_in1k'
    """
    name = get_deprecated_models().get(entry.paper_name) or entry.paper_name
    if not timm.is_model(name):
        return entry.name
    config = timm.get_pretrained_cfg(name)
    assert config is not None
    return name if "." in name else f"{name}.{config.tag}"


def _count(kind: str, entries: list[Entry]) -> int:
    return sum(entry.kind == kind for entry in entries)
