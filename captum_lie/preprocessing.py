"""Normalisation inside the model; the public name of :mod:`captum_lie.images.preprocessing`."""

from captum_lie.images import EXTENSIONS, ImageFolder, View, read_image
from captum_lie.images.preprocessing import Normalized

__all__ = ["EXTENSIONS", "ImageFolder", "Normalized", "View", "read_image"]
