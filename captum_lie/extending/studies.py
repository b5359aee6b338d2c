"""The main job: models over images, each image as each model wants it.

>>> import torch
>>> from captum_lie import get_groups
>>> plan = Plan(get_groups("rotation"), options=Options(pictured=0, relative=False))
>>> models = candidates_from([ModelSpec("small", "cnn")])
>>> result = carry_out(plan, models, find_images("builtin", limit=4), torch.device("cpu"))
>>> list(result.table["group"])
['rotation']
"""

from captum_lie.examples.photographs import find_photographs
from captum_lie.studies import Candidate, Demands, Options, prepare
from captum_lie.studies.plan import Plan, carry_out
from captum_lie.studies.preparation import first_images
from captum_lie.studies.sources import find_images
from captum_lie.studies.specs import ModelSpec, candidates_from
from captum_lie.studies.sweeping import Catalogue, Listed

__all__ = [
    "Candidate",
    "Catalogue",
    "Demands",
    "Listed",
    "ModelSpec",
    "Options",
    "Plan",
    "candidates_from",
    "carry_out",
    "find_images",
    "find_photographs",
    "first_images",
    "prepare",
]
