"""What measurements return: records of numbers, with their means, errors and tables.

Records are saved and loaded (:func:`save`, :func:`load`), and shards of one measurement put
together (:func:`merge`); :mod:`captum_lie.plotting` and ``captum-lie report`` draw them.
"""

from captum_lie.results.digits import DigitsRun, DigitsScore, DigitsStudy
from captum_lie.results.environment import Environment
from captum_lie.results.layer_maps import LayerMap, leading_calls
from captum_lie.results.layerwise import LayerwiseResult
from captum_lie.results.lee import LeeResult
from captum_lie.results.measurement import Measurement, merge
from captum_lie.results.metrics import MetricResult, MetricTable
from captum_lie.results.record import ModelRecord, Role, Subject
from captum_lie.results.sampled import SampledResult
from captum_lie.results.section import Section
from captum_lie.results.storage import load, save
from captum_lie.results.subnetworks import SubnetworkResult

__all__ = [
    "DigitsRun",
    "DigitsScore",
    "DigitsStudy",
    "Environment",
    "LayerMap",
    "LayerwiseResult",
    "LeeResult",
    "Measurement",
    "MetricResult",
    "MetricTable",
    "ModelRecord",
    "Role",
    "SampledResult",
    "Section",
    "Subject",
    "SubnetworkResult",
    "leading_calls",
    "load",
    "merge",
    "save",
]
