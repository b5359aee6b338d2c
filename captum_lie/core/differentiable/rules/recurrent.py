"""Recurrent networks, step by step."""

from __future__ import annotations

from typing import Any

import torch

from captum_lie.core.differentiable.dual import below, run_of
from captum_lie.core.differentiable.registry import rule
from captum_lie.core.tangents.registry import aten


@rule(aten.lstm.input)
def lstm(*args: Any) -> Any:
    """The fused kernel of CPUs has no second derivative; the steps that it fuses have one."""
    with below(run_of(args)), torch.backends.mkldnn.flags(enabled=False):
        return aten.lstm.input.decompose(*args)
