"""Sweeps: many models on several sets of images, a file for each cell, resumable.

A sweep's folder holds ``cells/KEY.safetensors``, one for each model and set of images, from which
``sweep.csv`` and ``models.csv`` are written. Whoever works on a cell holds its lock, so that
several sweeps may share a folder.
"""

from captum_lie.studies.sweeping.cluster import Cluster, submit
from captum_lie.studies.sweeping.grid import Grid, Task, grid_of
from captum_lie.studies.sweeping.images import Split, parse_splits
from captum_lie.studies.sweeping.listing import Catalogue, Listed, expand
from captum_lie.studies.sweeping.settings import Resources, SweepSettings
from captum_lie.studies.sweeping.submission import Submission
from captum_lie.studies.sweeping.sweep import Summary, sweep

__all__ = [
    "Catalogue",
    "Cluster",
    "Grid",
    "Listed",
    "Resources",
    "Split",
    "Submission",
    "Summary",
    "SweepSettings",
    "Task",
    "expand",
    "grid_of",
    "parse_splits",
    "submit",
    "sweep",
]
