"""What goes wrong with model files."""

from __future__ import annotations

from captum_lie.errors import UserError


class OnnxModelError(UserError, ValueError):
    """A model file that cannot be used: broken, hostile, or not an image classifier.

    Example:
        >>> issubclass(OnnxModelError, ValueError)
        True
    """
