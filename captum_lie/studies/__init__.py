"""Models × images × metrics, and what comes of them: records of :mod:`captum_lie.results`."""

from captum_lie.studies.candidates import Candidate, untrained_twin
from captum_lie.studies.layers import LayerOptions, decompose
from captum_lie.studies.measurement import Baselines, Options, measure
from captum_lie.studies.preparation import Demands, prepare
from captum_lie.studies.sweeping import sweep

__all__ = [
    "Baselines",
    "Candidate",
    "Demands",
    "LayerOptions",
    "Options",
    "decompose",
    "measure",
    "prepare",
    "sweep",
    "untrained_twin",
]
