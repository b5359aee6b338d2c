"""The paper's models under today's timm names, and family and kind of every timm model."""

from captum_lie_timm.catalogue.kinds import KINDS, family_of, kind_of
from captum_lie_timm.catalogue.paper import (
    COLLECTIONS,
    Entry,
    Unresolved,
    collection,
    unresolved,
)

__all__ = [
    "COLLECTIONS",
    "KINDS",
    "Entry",
    "Unresolved",
    "collection",
    "family_of",
    "kind_of",
    "unresolved",
]
