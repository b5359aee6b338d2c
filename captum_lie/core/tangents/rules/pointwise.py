"""Smooth functions of one tensor, element by element: ``t ↦ t ∘ f'(x)``.

PyTorch's reverse mode of ones gives ``f'``, once for all tangents; unlike its forward mode, whose
levels belong to the process, in any number of threads.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from captum_lie.core.tangents.dual import Dual, check_in_place, duals
from captum_lie.core.tangents.fallback import by_forward_mode, outside
from captum_lie.core.tangents.registry import RULES, NoRule, Operation, aten, overloads

POINTWISE = """
    gelu silu mish hardswish hardsigmoid sigmoid tanh elu selu celu softplus logit exp exp2 expm1
    log log2 log10 log1p sqrt rsqrt reciprocal abs sin cos tan asin acos atan sinh cosh asinh acosh
    atanh erf erfc erfinv lgamma digamma sinc clamp clamp_min clamp_max threshold hardshrink
    softshrink special_log_ndtr special_ndtr _prelu_kernel nan_to_num frac deg2rad rad2deg xlogy
    log_sigmoid
"""


def value_and_slope(operation: Operation, x: Dual, *args: Any, **kwargs: Any) -> Any:
    """``f(x)`` and ``f'(x)``, None where it is zero."""
    with outside(x.run), torch.enable_grad():
        leaf = x.stack[0].detach().requires_grad_()
        value = operation(leaf, *args, **kwargs)
        if not value.requires_grad:
            return value, None
        slope = torch.autograd.grad(value, leaf, torch.ones_like(value))[0]
    return value.detach(), slope


def pointwise(operation: Operation, x: Any, *args: Any, **kwargs: Any) -> Any:
    """The rule of such an operation, out of place."""
    if not isinstance(x, Dual) or duals((args, kwargs)) or not x.dtype.is_floating_point:
        return by_forward_mode(operation, (x, *args), kwargs)
    value, slope = value_and_slope(operation, x, *args, **kwargs)
    if slope is None:
        return value
    if value.shape != x.shape:
        return by_forward_mode(operation, (x, *args), kwargs)
    out = torch.empty_like(x.stack)
    torch.mul(x.stack[1:], slope, out=out[1:])
    out[0] = value
    return Dual(out, x.run)


def pointwise_(operation: Operation, x: Any, *args: Any, **kwargs: Any) -> Any:
    """The same in place; ``operation`` is the one out of place."""
    if not isinstance(x, Dual) or duals((args, kwargs)):
        raise NoRule(f"{operation} in place of constants and moving tensors")
    value, slope = value_and_slope(operation, x, *args, **kwargs)
    check_in_place(operation, x, value)
    x.stack[1:].zero_() if slope is None else x.stack[1:].mul_(slope)
    x.stack[0].copy_(value)
    return x


for _operation in [*overloads(*POINTWISE.split()), aten.pow.Tensor_Scalar]:
    RULES[_operation] = partial(pointwise, _operation)
    _name = _operation._schema.name.removeprefix("aten::")
    _packet = getattr(aten, f"{_name}_", None)
    _written = getattr(_packet, _operation._overloadname, None)
    if _written is not None:
        RULES[_written] = partial(pointwise_, _operation)
