"""Calls of single layers, with their boundaries, gradients and derivatives alone."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from captum_lie.core.autodiff import differentiable, pushforward
from captum_lie.core.captum_compat import TargetType, select_targets, sum_per_example
from captum_lie.core.derivative import bind
from captum_lie.core.groups import OneParameterGroup
from captum_lie.errors import InvalidValueError
from captum_lie.layerwise.tracing import Boundary, Call, Overrides, Side, Trace, frozen, traced
from captum_lie.layouts import UNKNOWN, Layout


@dataclass(eq=False)
class _Crossing:
    """A tensor at the layer's boundary: its layout, value and, later, gradient."""

    layout: Layout
    value: Tensor
    gradient: Tensor

    def receive(self, gradient: Tensor) -> None:
        self.gradient = self.gradient + gradient


@dataclass(eq=False)
class _Visit:
    """One call of the layer, with all that it takes to call it again alone."""

    call: Call
    arguments: list[Any]  # leaves of (args, kwargs)
    structure: pytree.TreeSpec
    n: int  # examples
    inputs: list[_Crossing] = field(default_factory=list)
    outputs: list[_Crossing] = field(default_factory=list)
    returned: list[int] = field(default_factory=list)  # which leaves of the output are ours

    def pushforward(self, tangents: list[Tensor]) -> list[Tensor]:
        """``J ξ`` of the layer alone, for each of its outputs."""
        places = _dependent(self.arguments)

        def function(*tensors: Tensor) -> Tensor:
            leaves = list(self.arguments)
            for place, tensor in zip(places, tensors, strict=True):
                leaves[place] = tensor
            args, kwargs = pytree.tree_unflatten(leaves, self.structure)
            found = pytree.tree_leaves(self.call.module(*args, **kwargs))
            return torch.cat([found[i].reshape(self.n, -1) for i in self.returned], 1)

        values = tuple(c.value for c in self.inputs)
        moved = pushforward(
            function, values, tuple(t[None] for t in tangents), forward_func=self.call.module
        )[0]
        parts = moved.split([c.value.numel() // self.n for c in self.outputs], 1)
        return [p.reshape(c.value.shape) for p, c in zip(parts, self.outputs, strict=True)]

    def generators(self, side: Side, group: OneParameterGroup) -> list[Tensor]:
        """``ξ(x)`` at all tensors of one side."""
        crossings = self.inputs if side == "input" else self.outputs
        for c in crossings:
            if c.layout == UNKNOWN:
                name, shape = self.call.name, tuple(c.value.shape)
                raise InvalidValueError(
                    f"The layout of the {side} of {name!r} ({type(self.call.module).__name__}), of "
                    f"shape {shape}, is unknown: which of its axes are spatial? Say so with "
                    f"layouts={{{name!r}: Layout(...)}}, or (input, output) layouts; "
                    "see captum_lie.layouts.Layout."
                )
        with torch.no_grad():
            return [c.layout.generator(group, c.value) for c in crossings]


@dataclass(frozen=True)
class Terms:
    """Attributions to a layer's tensors, with their layouts, and their sum by the other mode."""

    attributions: tuple[Tensor, ...]
    expected: Tensor  # [N]
    layouts: tuple[Layout, ...]

    def delta(self, attributions: tuple[Tensor, ...]) -> Tensor:
        """The sums of attributions to these tensors minus what the other mode expects, ``[N]``."""
        return sum_per_example(attributions, len(self.expected)) - self.expected


def layer_terms(
    root: nn.Module,
    layers: Sequence[nn.Module],
    inputs: tuple[Tensor, ...],
    group: OneParameterGroup,
    target: TargetType,
    args: object,
    overrides: Overrides,
    *,
    to_input: bool,
    check: bool,
) -> list[Terms]:
    """The terms of each layer, summed over its calls; arguments as for :func:`call_terms`."""
    found = call_terms(
        root, layers, inputs, group, target, args, overrides, to_input=to_input, check=check
    )
    return [_summed(terms) for terms in found]


def call_terms(
    root: nn.Module,
    layers: Sequence[nn.Module],
    inputs: tuple[Tensor, ...],
    group: OneParameterGroup,
    target: TargetType,
    args: object,
    overrides: Overrides,
    *,
    to_input: bool,
    check: bool,
) -> list[list[Terms]]:
    """The terms of each layer's calls, from one forward and one backward pass and each call alone.

    Args:
        root: runs the layers within it.
        to_input: attribute to the layers' inputs instead.
        check: whether the sum by the other mode is wanted.
    """
    return [
        [_terms(visit, group, to_input=to_input, check=check) for visit in visits]
        for visits in _visits(root, layers, inputs, target, args, overrides)
    ]


def _terms(visit: _Visit, group: OneParameterGroup, *, to_input: bool, check: bool) -> Terms:
    layouts = tuple(c.layout for c in (visit.inputs if to_input else visit.outputs))
    if visit.call.idle and not to_input:  # exactly zero, whatever the layout
        zeros = tuple(torch.zeros_like(c.value) for c in visit.outputs)
        return Terms(zeros, sum_per_example(zeros, visit.n), layouts)
    entering = visit.generators("input", group)
    inflow = _weighted(visit.inputs, entering)
    if to_input and not check:
        return Terms(inflow, sum_per_example(inflow, visit.n), layouts)
    moved = visit.pushforward(entering)
    if to_input:
        return Terms(inflow, sum_per_example(_weighted(visit.outputs, moved), visit.n), layouts)
    leaving = visit.generators("output", group)
    error = [m - t for m, t in zip(moved, leaving, strict=True)]
    outflow = sum_per_example(_weighted(visit.outputs, leaving), visit.n)
    return Terms(
        _weighted(visit.outputs, error), sum_per_example(inflow, visit.n) - outflow, layouts
    )


def _weighted(crossings: list[_Crossing], tangents: list[Tensor]) -> tuple[Tensor, ...]:
    return tuple(c.gradient * t for c, t in zip(crossings, tangents, strict=True))


def _visits(
    root: nn.Module,
    layers: Sequence[nn.Module],
    inputs: tuple[Tensor, ...],
    target: TargetType,
    args: object,
    overrides: Overrides,
) -> list[list[_Visit]]:
    """The calls of each layer in one forward and one backward pass."""
    trace = Trace(root, len(inputs[0]), (inputs[0].shape[-2], inputs[0].shape[-1]), overrides)
    visits: dict[Call, _Visit] = {}
    crossings: dict[tuple[Call, Side], list[_Crossing]] = {}
    running: list[_Visit] = []

    def watch(call: Call, side: Side, boundary: Boundary) -> None:
        if any(call.module is layer for layer in layers):
            value = boundary.copy.detach().clone()
            crossing = _Crossing(boundary.layout, value, torch.zeros_like(value))
            boundary.copy.register_hook(crossing.receive)
            crossings.setdefault((call, side), []).append(crossing)

    def enter(_: nn.Module, args: Any, kwargs: Any) -> None:
        leaves, structure = pytree.tree_flatten((args, kwargs))
        running.append(_Visit(trace.calls[-1], leaves, structure, len(inputs[0])))

    def leave(_: nn.Module, args: Any, output: Any) -> None:
        visit = running.pop()
        visit.returned = _dependent(pytree.tree_leaves(output))
        visits[visit.call] = visit

    trace.on_boundary = watch
    leaves = tuple(x.detach().clone().requires_grad_() for x in inputs)
    with differentiable(), torch.enable_grad(), frozen(root), traced(trace):
        with ExitStack() as hooks:  # after the trace's own: they see its copies
            for layer in dict.fromkeys(layers):
                hooks.callback(layer.register_forward_pre_hook(enter, with_kwargs=True).remove)
                hooks.callback(layer.register_forward_hook(leave).remove)
            output = select_targets(bind(root, None, None, args)(*leaves), target)
        trace.recording = False
        if output.numel() != len(inputs[0]):
            raise AssertionError(
                "The target must select one number for each example; "
                f"the selected output has shape {tuple(output.shape)}."
            )
        if output.requires_grad:
            torch.autograd.grad(output.sum(), leaves, allow_unused=True)
    found = []
    for layer in layers:
        mine = [visit for call, visit in visits.items() if call.module is layer]
        for visit in mine:
            visit.inputs = crossings.get((visit.call, "input"), [])
            visit.outputs = crossings.get((visit.call, "output"), [])
        mine = [visit for visit in mine if visit.inputs and visit.outputs]
        if not mine:
            name = next(name for name, module in root.named_modules() if module is layer)
            raise InvalidValueError(
                f"The layer {name!r} ({type(layer).__name__}) never ran on anything that depends "
                "on the images: does forward_func call it, as a module and not under no_grad?"
            )
        found.append(mine)
    return found


def _dependent(leaves: list[Any]) -> list[int]:
    """Places of the tensors that depend on the images."""
    return [
        i
        for i, x in enumerate(leaves)
        if isinstance(x, Tensor) and x.requires_grad and x.is_floating_point()
    ]


def _summed(terms: list[Terms]) -> Terms:
    """The sum over all calls of a layer."""
    shapes = [[tuple(a.shape) for a in t.attributions] for t in terms]
    if any(shape != shapes[0] for shape in shapes):
        raise InvalidValueError(
            f"The layer is called {len(terms)} times, on tensors of shapes {shapes}: there is no "
            "map of one shape that sums them. Take a module around each call instead."
        )
    attributions = tuple(
        torch.stack(parts).sum(0) for parts in zip(*(t.attributions for t in terms), strict=True)
    )
    expected = torch.stack([t.expected for t in terms]).sum(0)
    return Terms(attributions, expected, terms[0].layouts)


def concatenated(parts: Sequence[Terms]) -> Terms:
    """Consecutive examples as one."""
    attributions = zip(*(part.attributions for part in parts), strict=True)
    return Terms(
        tuple(torch.cat(maps) for maps in attributions),
        torch.cat([part.expected for part in parts]),
        parts[0].layouts,
    )
