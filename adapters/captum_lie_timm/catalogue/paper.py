"""The models that the paper measured, as named lists of today's timm names.

The table ``paper.csv`` holds what its released code ran (github.com/ngruver/lie-deriv at ed96788):
``all_models`` and ``core_models`` of ``sweep_configs/e2e_configs.py`` and ``core_models`` of
``sweep_configs/layerwise_configs.py``, each name once, in that order. Its columns:

- ``weights``: the file that this name loaded in timm 0.6.9, the version which that code carries
  (two names, ``vit_base_patch*_sam_224``, are those of timm 0.5);
- ``name``: today's name *with the tag of those same weights*, empty where there is none. A plain
  name would load others for many of them;
- ``found_by``: how the tag is known, see :data:`FOUND_BY`;
- ``lists``: ``core`` and ``layerwise``, where the name is in these, too;
- ``remark``: why there is no name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import timm

from captum_lie.errors import InvalidValueError
from captum_lie_timm.catalogue.kinds import family_of, kind_of
from captum_lie_timm.catalogue.table import read

#: What each collection holds.
COLLECTIONS: Mapping[str, str] = {
    "paper": "all models of its end-to-end experiments",
    "paper-core": "the core of these, by which architectures are compared",
    "paper-layerwise": "the models of its layerwise experiments (Fig. 4): the core with Swin, BEiT "
    "and three large ResNeXts",
}

#: How a tag was matched to the weights of timm 0.6.9.
FOUND_BY: Mapping[str, str] = {
    "file": "timm states that very file for the tag",
    "copy": "timm states a file of that name with another checksum: taken for the same weights, "
    "saved anew",
    "history": "an earlier release, or a comment in timm's code, states that file for the tag",
    "single": "timm states no file and has one set of weights only",
    "tag": "timm states no file and has several sets; this one's tag says what the file's name or "
    "address did (`v0.1-regnet/`: pycls)",
}


@dataclass(frozen=True)
class Row:
    """A line of the table; see the module."""

    paper_name: str
    name: str
    weights: str
    found_by: str
    lists: str
    remark: str


@dataclass(frozen=True)
class Entry:
    """A model of a collection.

    Attributes:
        paper_name: what the paper's code calls it.
        name: what timm calls it today, with the tag of the weights that the paper measured.
        family: timm's module, see :func:`family_of`.
        kind: one of :data:`KINDS`.
    """

    paper_name: str
    name: str
    family: str
    kind: str


@dataclass(frozen=True)
class Unresolved:
    """A model that the paper measured and the installed timm cannot load.

    Attributes:
        paper_name: what the paper's code calls it.
        reason: what became of it.
    """

    paper_name: str
    reason: str


def collection(name: str = "paper") -> list[Entry]:
    """The models of a collection that the installed timm has, weights included.

    Args:
        name: one of :data:`COLLECTIONS`.

    Raises:
        InvalidValueError: there is no such collection.

    Example:
        >>> resnet34 = next(e for e in collection("paper-core") if e.paper_name == "resnet34")
        >>> resnet34.name, resnet34.family, resnet34.kind
        ('resnet34.bt_in1k', 'resnet', 'modern CNN')
    """
    return [
        Entry(row.paper_name, row.name, family_of(row.name), kind_of(row.name))
        for row in rows(name)
        if _is_available(row)
    ]


def unresolved(name: str = "paper") -> list[Unresolved]:
    """The models of a collection that the installed timm lacks, each with the reason.

    Args:
        name: one of :data:`COLLECTIONS`.

    Raises:
        InvalidValueError: there is no such collection.

    Example:
        >>> unresolved("paper-core")
        []
        >>> "gluon_xception65" in [model.paper_name for model in unresolved()]
        True
    """
    return [
        Unresolved(row.paper_name, row.remark or f"timm {timm.__version__} has no {row.name}")
        for row in rows(name)
        if not _is_available(row)
    ]


def rows(name: str) -> list[Row]:
    """The lines of a collection, resolved or not.

    Raises:
        InvalidValueError: there is no such collection.

    Example:
        >>> [len(rows(name)) for name in COLLECTIONS]
        [483, 83, 97]
    """
    if name not in COLLECTIONS:
        raise InvalidValueError(
            f"There is no collection {name!r}: the collections are {', '.join(COLLECTIONS)}."
        )
    part = name.removeprefix("paper").removeprefix("-")
    return [row for row in _table() if not part or part in row.lists.split()]


def _is_available(row: Row) -> bool:
    return timm.is_model_pretrained(row.name)


@cache
def _table() -> tuple[Row, ...]:
    return tuple(Row(**line) for line in read("paper.csv"))
