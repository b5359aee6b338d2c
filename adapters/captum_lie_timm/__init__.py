"""timm models for captum-lie, loaded with the preprocessing that belongs to their weights."""

from captum_lie_timm import heads, imagenet, layouts, regrouping
from captum_lie_timm.loading import load

__all__ = ["heads", "imagenet", "layouts", "load", "regrouping"]
