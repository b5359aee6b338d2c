"""Calls of single layers: what entered and left them, the gradients there, and the layer alone."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from captum_lie.core.autodiff import pushforward
from captum_lie.core.captum_compat import TargetType, select_targets
from captum_lie.core.derivative import ModelFunction
from captum_lie.core.groups import OneParameterGroup
from captum_lie.core.memory import lazy_clone
from captum_lie.errors import InvalidValueError
from captum_lie.layerwise.evaluation import evaluated, leaves_of
from captum_lie.layerwise.tracing import Boundary, Call, Overrides, Side
from captum_lie.layouts import UNKNOWN, Layout


@dataclass(eq=False)
class Crossing:
    """A tensor at a layer's boundary: its layout, its value and the gradient that arrived there."""

    leaf: int
    layout: Layout
    value: Tensor
    gradient: Tensor

    def receive(self, gradient: Tensor) -> None:
        self.gradient = self.gradient + gradient


@dataclass(eq=False)
class Visit:
    """One call of a layer.

    Attributes:
        call: with all that it takes to call the layer again alone.
        n: number of examples.
        inputs, outputs: what crossed its boundaries.
    """

    call: Call
    n: int
    inputs: list[Crossing] = field(default_factory=list)
    outputs: list[Crossing] = field(default_factory=list)

    def pushforward(self, tangents: Sequence[Tensor]) -> list[Tensor]:
        """``J ξ`` of the layer alone, for each of its outputs."""

        def function(*tensors: Tensor) -> Tensor:
            values = list(self.call.arguments.values)
            for crossing, tensor in zip(self.inputs, tensors, strict=True):
                values[crossing.leaf] = tensor
            args, kwargs = self.call.arguments.rebuilt(values)
            found = pytree.tree_leaves(self.call.module(*args, **kwargs))
            return torch.cat([found[c.leaf].reshape(self.n, -1) for c in self.outputs], 1)

        values = tuple(c.value for c in self.inputs)
        moved = pushforward(
            function, values, tuple(t[None] for t in tangents), forward_func=self.call.module
        )[0]
        parts = moved.split([c.value.numel() // self.n for c in self.outputs], 1)
        return [p.reshape(c.value.shape) for p, c in zip(parts, self.outputs, strict=True)]

    def generators(self, side: Side, group: OneParameterGroup) -> list[Tensor]:
        """``ξ(x)`` at all tensors of one side.

        Raises:
            ValueError: a layout is unknown.
        """
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


def visits_of(
    root: nn.Module,
    layers: Sequence[nn.Module],
    inputs: tuple[Tensor, ...],
    target: TargetType,
    args: object,
    overrides: Overrides,
) -> list[list[Visit]]:
    """The calls of each layer in one forward and one backward pass of the target output.

    Args:
        root: runs the layers within it.

    Raises:
        ValueError: a layer never ran.
        AssertionError: bad target.
    """
    visits: dict[Call, Visit] = {}
    watched = set(map(id, layers))

    with ExitStack() as hooks:

        def watch(call: Call, side: Side, boundary: Boundary) -> None:
            if id(call.module) in watched:
                value = lazy_clone(boundary.copy.detach())
                crossing = Crossing(boundary.leaf, boundary.layout, value, torch.zeros_like(value))
                hooks.callback(boundary.copy.register_hook(crossing.receive).remove)
                visit = visits.setdefault(call, Visit(call, len(inputs[0])))
                (visit.inputs if side == "input" else visit.outputs).append(crossing)

        leaves = leaves_of(inputs)
        evaluation = evaluated(
            root, ModelFunction(root, args=args), leaves, watch, overrides=overrides
        )
        output = select_targets(hooks.enter_context(evaluation).output, target)
        if output.numel() != len(inputs[0]):
            raise AssertionError(
                "The target must select one number for each example; "
                f"the selected output has shape {tuple(output.shape)}."
            )
        if output.requires_grad:
            torch.autograd.grad(output.sum(), leaves, allow_unused=True)
    return [_of_layer(root, layer, list(visits.values())) for layer in layers]


def _of_layer(root: nn.Module, layer: nn.Module, visits: Sequence[Visit]) -> list[Visit]:
    found = [v for v in visits if v.call.module is layer and v.inputs and v.outputs]
    if not found:
        name = next(name for name, module in root.named_modules() if module is layer)
        raise InvalidValueError(
            f"The layer {name!r} ({type(layer).__name__}) never ran on anything that depends "
            "on the images: does forward_func call it, as a module and not under no_grad?"
        )
    return found
