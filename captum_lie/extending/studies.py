"""The main job: LEE of models over images, each image as each model wants it.

>>> from captum_lie import get_groups
>>> from captum_lie.examples import load_model
>>> from captum_lie.extending.commands import find_images
>>> models = {"cnn": load_model("cnn")}
>>> batches, subjects = prepare(models, find_images("builtin", limit=4))
>>> result = measure(models, batches, get_groups("rotation"), pictured=0, relative=False)
>>> list(result.table["group"])
['rotation']
"""

from captum_lie.cli.inputs import first_images, prepare
from captum_lie.examples.photographs import find_photographs
from captum_lie.studies.measurement import (
    UNTRAINED,
    Measurement,
    Picture,
    Subject,
    first_examples,
    measure,
)

__all__ = [
    "UNTRAINED",
    "Measurement",
    "Picture",
    "Subject",
    "find_photographs",
    "first_examples",
    "first_images",
    "measure",
    "prepare",
]
