"""Forward mode for many tangents at once: one evaluation of the model carries them all.

A :class:`~captum_lie.core.tangents.dual.Dual` stands for a tensor and its T tangents, kept as one
stack ``[1 + T, ...]``. Operations reach it below autograd, where PyTorch knows them by their ATen
names; each has a rule (``rules/``), or is taken apart, or differentiated by itself by PyTorch's own
forward mode. What has none of these raises :class:`NoRule`: never a wrong number.

Batch normalisations wait for what comes next (``waiting``). Where a backward pass is to follow
(``carrying``), autograd keeps the tensors without their tangents (``snapshots``).
"""

from captum_lie.core.tangents.carrying import carried, derivatives_of
from captum_lie.core.tangents.dual import Dual
from captum_lie.core.tangents.engine import fallbacks, pushforward
from captum_lie.core.tangents.registry import NoRule
from captum_lie.core.tangents.snapshots import hand_on, snapshot

__all__ = [
    "Dual",
    "NoRule",
    "carried",
    "derivatives_of",
    "fallbacks",
    "hand_on",
    "pushforward",
    "snapshot",
]
