"""timm models for captum-lie: loading by name, with the preprocessing that belongs to the weights."""

from captum_lie_timm.loading import load

__all__ = ["load"]
