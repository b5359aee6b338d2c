"""Nothing of the user's is changed: model, inputs, gradients, hooks, global settings."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointFunction

from captum_lie import (
    LayerLieDerivative,
    LayerwiseEquivarianceError,
    LieDerivative,
    LocalEquivarianceError,
    lie_derivative,
)
from captum_lie.layerwise import LayerwiseSampledError, SubnetworkEquivarianceError
from tests.toy_models import Fails, build, images

CALLS: dict[str, Callable[[Any, Tensor], Any]] = {
    "lie_derivative": lambda model, x: lie_derivative(model, x, "all"),
    "attribute": lambda model, x: LieDerivative(model).attribute(
        x, target=1, return_convergence_delta=True
    ),
    "lee_attribute": lambda model, x: LocalEquivarianceError(model).attribute(
        x, group="rotation", return_convergence_delta=True
    ),
    "score": lambda model, x: LocalEquivarianceError(model).score(x),
    "evaluate": lambda model, x: LocalEquivarianceError(model).evaluate([x]),
    "gram": lambda model, x: LocalEquivarianceError(model).gram(x),
}


def state(model: nn.Module, x: Tensor) -> dict[str, Any]:
    hooks = [
        len(hooks)
        for module in model.modules()
        for name, hooks in vars(module).items()
        if "hooks" in name and "kwargs" not in name and "always" not in name
    ]
    with torch.no_grad():
        output = model(x.clone())
    return {
        "output": output.numpy().tobytes(),
        "input": x.detach().numpy().tobytes(),
        "weights": [p.detach().numpy().tobytes() for p in model.state_dict().values()],
        "hooks": hooks,
        "requires_grad": [p.requires_grad for p in model.parameters()] + [x.requires_grad],
        "grads": [p.grad is None for p in model.parameters()] + [x.grad is None],
        "training": [m.training for m in model.modules()],
        "mha": torch.backends.mha.get_fastpath_enabled(),
        "sdp": (
            torch.backends.cuda.flash_sdp_enabled(),
            torch.backends.cuda.mem_efficient_sdp_enabled(),
            torch.backends.cuda.math_sdp_enabled(),
        ),
        "checkpoints": vars(CheckpointFunction).get("apply"),
        "grad mode": torch.is_grad_enabled(),
        "rng": torch.get_rng_state().numpy().tobytes(),
    }


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("leaf", [False, True])
@pytest.mark.parametrize("name", ["resnet", "vit"])
@pytest.mark.parametrize("call", CALLS)
def test_nothing_is_changed(call: str, name: str, frozen: bool, leaf: bool) -> None:
    model, x = build(name), images()
    model.requires_grad_(not frozen)
    x.requires_grad_(leaf)
    before = state(model, x)
    CALLS[call](model, x)
    assert state(model, x) == before


@pytest.mark.parametrize("call", CALLS)
def test_nothing_is_changed_when_the_model_raises(call: str) -> None:
    model, x = Fails().eval(), images()
    before = state(model, x)
    model.armed = True
    with pytest.raises(KeyError, match="the model failed"):
        CALLS[call](model, x)
    model.armed = False
    assert state(model, x) == before


@pytest.mark.parametrize("call", CALLS)
def test_a_model_that_writes_into_its_input_does_not_spoil_it(call: str) -> None:
    body = build("resnet")

    class InPlace(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            # As preprocessing code does; differentiable because the input is a copy.
            x = x.view_as(x) if x.requires_grad else x
            return body(x.mul(1.0).sub_(0.5))

    x = images()
    before = x.clone()
    CALLS[call](InPlace(), x)
    assert torch.equal(x, before)


def test_results_are_detached() -> None:
    model, x = build("vit"), images().requires_grad_()
    assert not lie_derivative(model, x, "all").requires_grad
    for method in (LieDerivative(model), LocalEquivarianceError(model)):
        assert not method.attribute(x, target=1).requires_grad
    assert not LocalEquivarianceError(model).score(x).requires_grad


LAYERWISE: dict[str, Callable[[Any, Tensor], Any]] = {
    "aligned": lambda model, x: LayerwiseEquivarianceError(model).attribute(x, ["rotation"]),
    "target": lambda model, x: LayerwiseEquivarianceError(model).attribute(
        x, ["scale", "rotation"], "target", target=1
    ),
    "norm": lambda model, x: LayerwiseEquivarianceError(model).attribute(x, measure="norm"),
    "probes": lambda model, x: LayerwiseEquivarianceError(model).attribute(
        x, measure="norm", n_probes=4
    ),
    "layer": lambda model, x: LayerLieDerivative(model, "0").attribute(x, target=1),
    "sampled": lambda model, x: LayerwiseSampledError(model).evaluate([x], n_samples=1),
    "heads": lambda model, x: SubnetworkEquivarianceError(model).attribute(x),
}


@pytest.mark.parametrize("call", [*CALLS, *LAYERWISE])
def test_nothing_is_kept(call: str) -> None:
    """Activations are freed at once: the garbage collector cannot see through autograd's graph."""
    seen: list[weakref.ref[Tensor]] = []

    def remember(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        seen.extend(weakref.ref(x) for x in (*args, output))

    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)]
    model = nn.Sequential(*layers).double().eval()
    x = images()
    (CALLS | LAYERWISE)[call](model, x)  # what PyTorch imports at its first use keeps frames
    for module in model:
        module.register_forward_hook(remember)
    gc.disable()
    try:
        kept = (CALLS | LAYERWISE)[call](model, x)
        alive = [ref() for ref in seen if ref() is not None and ref() is not x]
    finally:
        gc.enable()
    assert seen
    assert not alive
    assert kept is not None
