"""Normalisation inside the model; the public name of :mod:`captum_lie.images.preprocessing`."""

from captum_lie.images.preprocessing import EXTENSIONS, ImageFolder, Normalized, View, read_image

__all__ = ["EXTENSIONS", "ImageFolder", "Normalized", "View", "read_image"]
