"""The paper's released estimator of layerwise equivariance error, written out from the mathematics.

It hooks every layer, differentiates it there along the group by double backward, and sends one
Gaussian probe after another backward through the network: hooks attach each layer's local error
``J_i ξ(x_i) - ξ(x_{i+1})``, then each probe costs one forward and one backward pass, and gives a
sample of ``⟨v, C_i⟩²`` per layer.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from captum_lie.core.derivative import OutputFn
from captum_lie.groups import OneParameterGroup
from captum_lie.layerwise.evaluation import evaluated, leaves_of
from captum_lie.layerwise.tracing import Call
from captum_lie.layouts import Layout

Layouts = dict[str, tuple[Layout, Layout]]


def leaf_layouts(model: nn.Module, x: Tensor) -> Layouts:
    """Layouts of all leaf modules with one input, one output and known boundaries."""
    with evaluated(model, model, leaves_of((x,))) as evaluation:
        calls = evaluation.calls

    def usable(call: Call) -> bool:
        single = len(call.inputs) == len(call.outputs) == 1
        return not call.has_children and call.resolved and not call.idle and single

    return {c.name: (c.inputs[0].layout, c.outputs[0].layout) for c in calls if usable(c)}


Errors = dict[str, tuple[Tensor, Tensor]]
Hook = Callable[[nn.Module, tuple[Tensor], Tensor], Tensor]


def local_error_hook(
    name: str, layouts: tuple[Layout, Layout], group: OneParameterGroup, errors: Errors
) -> Hook:
    """Forward hook that keeps ``J ξ(x) - ξ(y)`` of its layer, by double backward."""
    entering, leaving = layouts

    def attach(module: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor:
        here = args[0].detach()
        t = torch.zeros((), requires_grad=True)
        again = module.forward(here + t * entering.generator(group, here))
        dummy = torch.zeros_like(again, requires_grad=True)
        (gradient,) = torch.autograd.grad(again, t, dummy, create_graph=True)
        (derivative,) = torch.autograd.grad(gradient, dummy)
        copy = output.clone()
        errors[name] = (copy, derivative - leaving.generator(group, output.detach()))
        return copy

    return attach


def literal(
    model: nn.Module,
    x: Tensor,
    group: OneParameterGroup,
    layouts: Layouts,
    probes: int,
    output_fn: OutputFn,
) -> dict[str, Tensor]:
    """Squared norms of the leaves' contributions by Gaussian probes, one pass for each."""
    modules = dict(model.named_modules())
    sums: dict[str, Tensor] = {name: torch.zeros(len(x)) for name in layouts}
    for _ in range(probes):
        errors: Errors = {}
        handles = [
            modules[name].register_forward_hook(local_error_hook(name, pair, group, errors))
            for name, pair in layouts.items()
        ]
        try:
            output = output_fn(model(x.clone().requires_grad_()))
        finally:
            for handle in handles:
                handle.remove()
        copies = [copy for copy, _ in errors.values()]
        gradients = torch.autograd.grad(output, copies, torch.randn_like(output))
        for (name, (_, error)), gradient in zip(errors.items(), gradients, strict=True):
            # Windows and the like: several rows belong to an example.
            sums[name] += (gradient * error).reshape(len(x), -1).sum(1) ** 2
    return {name: total / probes for name, total in sums.items()}


def confident_softmax(model: nn.Module, x: Tensor, confidence: float = 0.9) -> OutputFn:
    """Softmax at the temperature at which random weights are as sure as trained ones."""
    with torch.no_grad():
        scores = model(x)
    scale = 1.0
    while (scale * scores).softmax(1).max(1).values.mean() < confidence:
        scale *= 1.2
    return lambda output: (scale * output).softmax(1)
