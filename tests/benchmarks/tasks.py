"""What users wait for, each by every way there is, and the limit that no way is expected to beat.

A task's methods are functions without arguments, by name; some of them make up its limit
(:func:`limit_of`). A *backward pass* is a training step's: gradients of parameters and images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import captum_lie_timm  # noqa: F401 (registers the layouts of timm's modules)
from captum_lie import LayerwiseEquivarianceError, LocalEquivarianceError, get_groups
from captum_lie.core.autodiff import _vmapped, differentiable
from captum_lie.core.derivative import OutputFn, tangent_basis
from captum_lie.groups import OneParameterGroup, SpatialGroup
from captum_lie.layerwise.hooks import frozen
from tests.benchmarks.literal import confident_softmax, leaf_layouts, literal

Run = Callable[[], object]
#: Probes of the paper's layerwise estimator that are really run; its time is scaled to 100.
PROBES = 4


def groups(model: nn.Module, x: Tensor) -> dict[str, Run]:
    """LEE under all ten groups: seven tangents."""
    every = get_groups("all")
    basis, _ = tangent_basis(every)
    tangents = torch.stack([group.generator(x) for group in basis])
    rows = torch.cat([x[None], tangents]).flatten(0, 1)
    method = LocalEquivarianceError(model)

    def vmap() -> Tensor:
        with differentiable(), torch.no_grad():
            return _vmapped(lambda y: model(y).softmax(1), (x,), (tangents,), None)

    return {
        "stacked": partial(_forward, model, rows),
        "looped": lambda: [_forward(model, row) for row in rows.split(len(x))],
        "ours": partial(method.score, x, every),
        "torch.func": vmap,
        "double backward": partial(_double_backward, model, x, [g.act for g in basis]),
        "the paper's": partial(_double_backward, model, x, [g.act for g in every]),
    }


def layers(model: nn.Module, x: Tensor) -> dict[str, Run]:
    """The exact layerwise decomposition (``aligned``) under one group, and under nine."""
    confident = confident_softmax(model, x)
    spatial = [g for g in get_groups("all") if isinstance(g, SpatialGroup)]
    layouts = leaf_layouts(model, x)

    def paper() -> object:
        with sdpa_kernel(SDPBackend.MATH), frozen(model):
            return literal(model, x, spatial[0], layouts, PROBES, confident)

    method = LayerwiseEquivarianceError(model, output_fn=confident)
    return {
        "forward and backward": partial(_training_step, model, x, confident),
        "to the images alone": partial(_backward_to_images, model, x, confident),
        "ours": partial(method.attribute, x, spatial[:1]),
        "ours, nine groups": partial(method.attribute, x, spatial),
        f"the paper's, {PROBES} probes": paper,
    }


def pixels(model: nn.Module, x: Tensor) -> dict[str, Run]:
    """LEE under rotation, attributed to the pixels."""
    group = get_groups("rotation")[0]
    method = LocalEquivarianceError(model)
    return {
        "forward": partial(_forward, model, x),
        "forward and backward": partial(_training_step, model, x, _softmax),
        "ours": partial(method.attribute, x, group=group),
        "double backward": partial(_pixels_by_double_backward, model, x, group),
    }


def relative(model: nn.Module, x: Tensor) -> dict[str, Run]:
    """Relative LEE under all ten groups, the control in closed form included."""
    method = LocalEquivarianceError(model)
    return {
        "stacked": partial(_forward, model, x),
        "looped": lambda: [_forward(model, image) for image in x.split(1)],
        "ours": partial(method.evaluate, [x], n_probes=8),
    }


TASKS: Mapping[str, Callable[[nn.Module, Tensor], dict[str, Run]]] = {
    "groups": groups,
    "layers": layers,
    "pixels": pixels,
    "relative": relative,
}


def limit_of(task: str, seconds: Mapping[str, float]) -> float:
    """Seconds that a task must at least be allowed."""
    if task in ("groups", "relative"):  # eight forward passes an image, or one
        return min(seconds["stacked"], seconds["looped"])
    if task == "layers":
        return seconds["forward and backward"]
    return seconds["forward"] + seconds["forward and backward"]  # two forward, one backward


def _softmax(output: Tensor) -> Tensor:
    return output.softmax(1)


def _forward(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        output: Tensor = model(x)
        return output


def _training_step(model: nn.Module, x: Tensor, output_fn: OutputFn) -> None:
    leaf = x.clone().requires_grad_()
    assert output_fn is not None
    output_fn(model(leaf))[:, 0].sum().backward()
    model.zero_grad()


def _backward_to_images(model: nn.Module, x: Tensor, output_fn: OutputFn) -> None:
    with frozen(model):
        _training_step(model, x, output_fn)


def _double_backward(
    model: nn.Module, x: Tensor, flows: list[Callable[[Tensor, Tensor], Tensor]]
) -> Tensor:
    """One derivative of t ↦ f(act(x, t)) at t = 0 for each flow, as the paper's code does it."""
    found = []
    with sdpa_kernel(SDPBackend.MATH):
        for act in flows:
            t = torch.zeros((), requires_grad=True)
            output = model(act(x, t)).softmax(1)
            dummy = torch.zeros_like(output, requires_grad=True)
            (gradient,) = torch.autograd.grad(output, t, dummy, create_graph=True)
            found.append(torch.autograd.grad(gradient, dummy)[0])
    return torch.stack(found)


def _pixels_by_double_backward(model: nn.Module, x: Tensor, group: OneParameterGroup) -> Tensor:
    """``(Jᵀ L f) ⊙ ξ / dim`` with ``L f`` by reverse mode twice."""
    with sdpa_kernel(SDPBackend.MATH):
        leaf, tangent = x.clone().requires_grad_(), group.generator(x)
        output = model(leaf).softmax(1)
        dummy = torch.zeros_like(output, requires_grad=True)
        (gradient,) = torch.autograd.grad(output, leaf, dummy, create_graph=True)
        (derivative,) = torch.autograd.grad(gradient, dummy, tangent, retain_graph=True)
        (pulled,) = torch.autograd.grad(output, leaf, derivative)
        return pulled * tangent / output.shape[1]
