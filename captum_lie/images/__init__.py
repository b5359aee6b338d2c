"""From folders, lists, stacks and data sets to the images that each model sees.

A source (:func:`open_images`) gives images by position; a :class:`View` says how a model wants
them; :class:`Batches` puts both together.
"""

from captum_lie.images.batches import Batches, ImageFolder
from captum_lie.images.files import EXTENSIONS, read_image
from captum_lie.images.labels import match_labels
from captum_lie.images.opening import open_images
from captum_lie.images.resizing import resized
from captum_lie.images.sources import ImageDataset, ImageFiles, ImageSource, ImageStack
from captum_lie.images.view import View, view_of

__all__ = [
    "EXTENSIONS",
    "Batches",
    "ImageDataset",
    "ImageFiles",
    "ImageFolder",
    "ImageSource",
    "ImageStack",
    "View",
    "match_labels",
    "open_images",
    "read_image",
    "resized",
    "view_of",
]
