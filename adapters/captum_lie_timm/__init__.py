"""timm models for captum-lie, loaded with the preprocessing that belongs to their weights."""

from captum_lie_timm import catalogue, heads, imagenet, layouts, regrouping
from captum_lie_timm.catalogue import Entry, collection, family_of, kind_of
from captum_lie_timm.loading import load

__all__ = [
    "Entry",
    "catalogue",
    "collection",
    "family_of",
    "heads",
    "imagenet",
    "kind_of",
    "layouts",
    "load",
    "regrouping",
]
