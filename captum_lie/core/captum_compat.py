"""Captum's helpers that this library relies on, in one place (captum 0.9).

Several are private to Captum; when they move, only this module changes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar, cast

import torch
from captum._utils.common import (
    _format_additional_forward_args,
    _format_output,
    _format_tensor_into_tuples,
    _is_tuple,
    _run_forward,
    _select_targets,
    _validate_target,
)
from captum._utils.progress import progress as _progress
from captum._utils.typing import TargetType
from captum.attr._utils.attribution import GradientAttribution, LayerAttribution
from captum.log import log_usage as _log_usage
from captum.robust import Perturbation
from torch import Tensor

from captum_lie.errors import InvalidTypeError

__all__ = [
    "ForwardFunc",
    "GradientAttribution",
    "Inputs",
    "LayerAttribution",
    "Perturbation",
    "TargetType",
    "as_tuple",
    "batches",
    "like_inputs",
    "log_usage",
    "progress",
    "run_forward",
    "select_targets",
    "take",
    "validate_target",
]

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
ForwardFunc = Callable[..., Any]
Inputs = Tensor | tuple[Tensor, ...]
T = TypeVar("T")


def log_usage(*, part_of_slo: bool) -> Callable[[Decorated], Decorated]:
    """Captum's decorator of every ``attribute``, which ``NoiseTunnel`` and TCAV look behind."""
    return cast("Callable[[Decorated], Decorated]", _log_usage(part_of_slo=part_of_slo))


def as_tuple(inputs: Inputs) -> tuple[Tensor, ...]:
    """Inputs as a tuple, whether one tensor or several were given."""
    if not isinstance(inputs, Tensor | tuple):
        raise InvalidTypeError(
            f"Inputs must be a torch.Tensor or a tuple of them; got {type(inputs).__name__}."
        )
    return _format_tensor_into_tuples(inputs)


def like_inputs(inputs: Inputs, outputs: tuple[Tensor, ...]) -> Any:
    """Tensor in, tensor out; tuple in, tuple out."""
    return _format_output(_is_tuple(inputs), outputs)


def run_forward(
    forward_func: ForwardFunc, inputs: tuple[Tensor, ...], target: TargetType, args: object
) -> Tensor:
    """Evaluate the model and select the target; a bad target raises ``AssertionError``."""
    function = _with_signature(forward_func)
    return cast(Tensor, _run_forward(function, inputs, target, args))


def _with_signature(forward_func: ForwardFunc) -> ForwardFunc:
    """The function, wrapped if it has no signature (``torch.square``): Captum inspects it."""
    try:
        inspect.signature(forward_func)
    except ValueError:
        return lambda *args: forward_func(*args)
    return forward_func


def select_targets(output: Tensor, target: TargetType) -> Tensor:
    return _select_targets(output, target)


def validate_target(num_examples: int, target: TargetType) -> None:
    _validate_target(num_examples, target)


def batches(
    inputs: tuple[Tensor, ...], args: object, target: TargetType, size: int | None
) -> Iterator[tuple[tuple[Tensor, ...], tuple[object, ...] | None, TargetType]]:
    """Consecutive examples, at most ``size`` at a time, with their arguments and targets."""
    total = len(inputs[0])
    size = size or total
    for start in range(0, total, size):
        yield take(inputs, args, target, start, start + size)


def take(
    inputs: tuple[Tensor, ...], args: object, target: TargetType, start: int, stop: int
) -> tuple[tuple[Tensor, ...], tuple[object, ...] | None, TargetType]:
    """The examples from ``start`` to before ``stop``, with their arguments and targets.

    As in Captum, tensors among ``args`` are taken to have one row per example.
    """
    arguments = cast("tuple[object, ...] | None", _format_additional_forward_args(args))
    if start == 0 and stop >= len(inputs[0]):
        return inputs, arguments, target
    rows = slice(start, stop)
    per_example = isinstance(target, list) or (isinstance(target, Tensor) and target.numel() > 1)
    return (
        tuple(x[rows] for x in inputs),
        arguments and tuple(a[rows] if isinstance(a, Tensor) else a for a in arguments),
        cast(Any, target)[rows] if per_example else target,
    )


def progress(iterable: Iterable[T], description: str, total: int | None, show: bool) -> Iterable[T]:
    """Captum's progress bar (tqdm), or nothing.

    Example:
        >>> list(progress(range(3), "batches", 3, show=False))
        [0, 1, 2]
    """
    if not show:
        return iterable
    return cast("Iterable[T]", _progress(iterable, desc=description, total=total))


def sum_per_example(attributions: tuple[Tensor, ...], n: int | None = None) -> Tensor:
    """Sum of everything that belongs to each example, over all inputs: ``[N]``.

    Args:
        n: number of examples, where the first axis may hold more (windows of each, say).
    """
    return torch.stack([a.reshape(n or len(a), -1).sum(1) for a in attributions]).sum(0)
