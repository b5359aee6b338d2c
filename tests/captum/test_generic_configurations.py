"""Captum's own generic test configurations, on images: targets, arguments, inputs of every kind.

Captum's configurations are networks of vectors. Here each vector is a weighted mean of an image's
pixels, so that every configuration that suits a gradient method suits ours.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from captum.attr import (
    InputXGradient,
    LayerGradientXActivation,
    NoiseTunnel,
    Saliency,
)
from torch import Tensor, nn

pytest.importorskip("captum.testing", reason="captum ships its tests since 0.9")

from captum.testing.attr.helpers.test_config import config
from captum.testing.helpers.basic_models import BasicModel_ConvNet

from captum_lie import LayerLieDerivative, LieDerivative, LocalEquivarianceError, get_group

GENERIC = [c for c in config if InputXGradient in c["algorithms"]]
PIXELS = (4, 5)

# Captum says so whenever it turns on gradients itself.
pytestmark = pytest.mark.filterwarnings("ignore:Input Tensor . did not already require gradients")


class OnImages(nn.Module):
    """A network of vectors that sees weighted means of images; further arguments pass through."""

    def __init__(self, model: nn.Module, n_inputs: int) -> None:
        super().__init__()
        self.model, self.n_inputs = model, n_inputs
        self.means = nn.ModuleList(WeightedMean(seed) for seed in range(n_inputs))

    def forward(self, *args: Any) -> Tensor:
        images, rest = args[: self.n_inputs], args[self.n_inputs :]
        return self.model(*(mean(x) for mean, x in zip(self.means, images, strict=True)), *rest)


class WeightedMean(nn.Module):
    weight: Tensor

    def __init__(self, seed: int) -> None:
        super().__init__()
        weight = torch.rand(3, *PIXELS, generator=torch.Generator().manual_seed(seed))
        self.register_buffer("weight", weight / weight.sum((1, 2), keepdim=True))

    def forward(self, x: Tensor) -> Tensor:
        return (self.weight * x).sum((2, 3))


def case(entry: dict[str, Any]) -> tuple[OnImages, Any, dict[str, Any], dict[str, Any]]:
    """The model, images, the method's arguments and those of the noise tunnel."""
    arguments = dict(entry["attribute_args"])
    vectors = arguments.pop("inputs")
    several = isinstance(vectors, tuple)
    generator = torch.Generator().manual_seed(1)
    images = tuple(
        (v[..., None, None] + torch.randn(*v.shape, *PIXELS, generator=generator)).double().detach()
        for v in (vectors if several else (vectors,))
    )
    tunnel = {k: arguments.pop(k) for k in list(arguments) if k.startswith(("nt_", "stdevs"))}
    arguments = {k: v for k, v in arguments.items() if k in ("target", "additional_forward_args")}
    if "additional_forward_args" in arguments:
        arguments["additional_forward_args"] = tuple(
            a.double() if isinstance(a, Tensor) else a for a in arguments["additional_forward_args"]
        )
    model = OnImages(copy.deepcopy(entry["model"]), len(images)).double().eval()
    return model, images if several else images[0], arguments, tunnel


def as_list(attribution: Any) -> list[Tensor]:
    return list(attribution) if isinstance(attribution, tuple) else [attribution]


def saliency_times_motion(
    model: nn.Module, images: Any, arguments: dict[str, Any], group: str
) -> list[Tensor]:
    """∂f_k/∂x by Captum, times ξ(x): what ``LieDerivative`` is."""
    gradients = Saliency(model).attribute(images, abs=False, **arguments)
    action = get_group(group)
    return [
        g * action.generator(x) for g, x in zip(as_list(gradients), as_list(images), strict=True)
    ]


def total(attributions: list[Tensor]) -> Tensor:
    return torch.stack([a.flatten(1).sum(1) for a in attributions]).sum(0)


@pytest.mark.parametrize("group", ["rotation", "brightness"])
@pytest.mark.parametrize("entry", GENERIC, ids=lambda c: c["name"])
def test_values_are_captums_gradient_times_the_motion(entry: dict[str, Any], group: str) -> None:
    model, images, arguments, tunnel = case(entry)
    expected = saliency_times_motion(model, images, arguments, group)
    assert total([e.abs() for e in expected]).max() > 1e-3
    # LEE of one plain output is (L f_k)², and its attribution L f_k times that of L f_k.
    rate = total(expected)[:, None, None, None]
    for method, wanted in (
        (LieDerivative(model), expected),
        (LocalEquivarianceError(model, output_fn=None), [rate * e for e in expected]),
    ):
        explain: Any = NoiseTunnel(method).attribute if tunnel else method.attribute
        found = explain(images, group=group, **arguments, **tunnel)
        assert isinstance(found, tuple) == isinstance(images, tuple)
        for a, b in zip(as_list(found), wanted, strict=True):
            torch.testing.assert_close(a, b)
    if group == "brightness" and not tunnel:  # its motion is the image itself
        same = InputXGradient(model).attribute(images, **arguments)
        for a, b in zip(as_list(same), expected, strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("entry", GENERIC, ids=lambda c: c["name"])
def test_examples_do_not_depend_on_their_batch(entry: dict[str, Any]) -> None:
    model, images, arguments, _ = case(entry)
    target, extra = arguments.pop("target"), arguments.get("additional_forward_args", ())
    n = len(as_list(images)[0])
    for method in (LieDerivative(model), LocalEquivarianceError(model, output_fn=None)):
        options: Any = {"group": "shear_x", **arguments}
        batch = as_list(method.attribute(images, target=target, **options))
        for i in range(n):
            options["additional_forward_args"] = tuple(
                a[i : i + 1] if isinstance(a, Tensor) else a for a in extra
            )
            if isinstance(target, list) or (isinstance(target, Tensor) and target.numel() > 1):
                own = target[i]
            else:
                own = target
            one: Any = tuple(x[i : i + 1] for x in as_list(images))
            one = one if isinstance(images, tuple) else one[0]
            for a, b in zip(
                as_list(method.attribute(one, target=own, **options)), batch, strict=True
            ):
                torch.testing.assert_close(a, b[i : i + 1])


@pytest.mark.parametrize("entry", GENERIC, ids=lambda c: c["name"])
def test_what_a_layer_adds(entry: dict[str, Any]) -> None:
    """Vectors do not move: all of the derivative arises where images become vectors."""
    model, images, arguments, _ = case(entry)
    inner = next(layer for layer in model.model.modules() if isinstance(layer, nn.Linear))
    *means, inside = LayerLieDerivative(model, [*model.means, inner]).attribute(
        images, group="rotation", **arguments
    )
    expected = total(saliency_times_motion(model, images, arguments, "rotation"))
    torch.testing.assert_close(total(means), expected)
    assert expected.abs().max() > 1e-3
    assert inside.abs().max() == 0


@pytest.mark.parametrize("entry", GENERIC, ids=lambda c: c["name"])
def test_data_parallel_hooks_and_traced_models(entry: dict[str, Any]) -> None:
    """On a machine without GPU ``DataParallel`` calls its module, as in Captum's own tests."""
    model, images, arguments, _ = case(entry)
    for cls in (LieDerivative, lambda f: LocalEquivarianceError(f, output_fn=None)):
        expected = as_list(cls(model).attribute(images, group="scale", **arguments))
        parallel = cls(nn.DataParallel(model)).attribute(images, group="scale", **arguments)
        for a, b in zip(as_list(parallel), expected, strict=True):
            torch.testing.assert_close(a, b)
    LayerLieDerivative(model, "means.0").attribute(images, **arguments)
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module._backward_hooks
    if "additional_forward_args" in arguments:  # tracing fixes arguments that are no tensors
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated; Captum still tests with it
        traced = torch.jit.trace(model, as_list(images), check_trace=False)
    again = LieDerivative(traced).attribute(images, group="scale", **arguments)
    plain = LieDerivative(model).attribute(images, group="scale", **arguments)
    for a, b in zip(as_list(again), as_list(plain), strict=True):
        torch.testing.assert_close(a, b)


def conv_case() -> tuple[Any, Any, dict[str, Any]]:
    """Captum's image configuration for layers, whose last rows are equal in Captum's network.

    A softmax over equal rows is constant, so that every gradient would be zero.
    """
    (entry,) = (
        c
        for c in config
        if isinstance(c["model"], BasicModel_ConvNet)
        and LayerGradientXActivation in c["algorithms"]
    )
    arguments = dict(entry["attribute_args"])
    model = copy.deepcopy(entry["model"]).double()
    generator = torch.Generator().manual_seed(0)
    model.fc2.weight = nn.Parameter(torch.randn(10, 8, generator=generator).double())
    images = arguments.pop("inputs").double() / 100
    return model, images, {**arguments, "layer": entry["layer"]}


def test_the_flux_of_brightness_is_captums_gradient_times_activation() -> None:
    """Under brightness ξ(x) = x: g ⊙ ξ(x) at a layer's input is ``LayerGradientXActivation``."""
    model, images, arguments = conv_case()
    layer, target = model.get_submodule(arguments["layer"]), arguments["target"]
    expected = LayerGradientXActivation(model, layer).attribute(
        images, target=target, attribute_to_layer_input=True
    )
    flux = LayerLieDerivative(model, layer).attribute(
        images, target=target, group="brightness", attribute_to_layer_input=True
    )
    assert expected.abs().max() > 1e-4
    torch.testing.assert_close(flux, expected)


def test_a_biased_convolution_errs_by_its_bias_under_brightness() -> None:
    """J x - f(x) = -bias, for a convolution is affine; times the gradient at its output."""
    model, images, arguments = conv_case()
    layer, target = model.get_submodule(arguments["layer"]), arguments["target"]
    outputs: list[Tensor] = []
    handle = layer.register_forward_hook(lambda _m, _i, output: outputs.append(output))
    score = model(images)[:, target].sum()
    handle.remove()
    (gradient,) = torch.autograd.grad(score, outputs[0])
    expected = -gradient * layer.bias.detach()[:, None, None]
    found = LayerLieDerivative(model, layer).attribute(images, target=target, group="brightness")
    assert expected.abs().max() > 1e-4
    torch.testing.assert_close(found, expected)
