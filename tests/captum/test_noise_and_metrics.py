"""NoiseTunnel, infidelity, sensitivity and interpolation, against their definitions."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from captum.attr import LayerAttribution, NoiseTunnel
from captum.metrics import infidelity, sensitivity_max
from torch import Tensor

from captum_lie import (
    LayerLieDerivative,
    LieDerivative,
    LocalEquivarianceError,
    Translation,
    lie_derivative,
)
from tests.toy_models import build, images

METHODS: dict[str, Any] = {
    "lie": LieDerivative,
    "lee": LocalEquivarianceError,
    "layer": lambda model: LayerLieDerivative(model, "conv1"),
}
SMOOTHINGS: dict[str, Any] = {
    "smoothgrad": lambda a: a.mean(1),
    "smoothgrad_sq": lambda a: (a**2).mean(1),
    "vargrad": lambda a: a.var(1, correction=0),
}


def noised(x: Tensor, samples: int, at_a_time: int, stdev: float) -> Tensor:
    """What the tunnel sees, ``[samples, N, ...]``: Captum repeats each example, then adds noise."""
    parts = []
    for _ in range(samples // at_a_time):
        repeated = x.repeat_interleave(at_a_time, 0)
        noise = torch.normal(0, torch.full(repeated.shape, stdev)).to(x)
        parts.append((repeated + noise).unflatten(0, (len(x), at_a_time)).transpose(0, 1))
    return torch.cat(parts)


@pytest.mark.parametrize("at_a_time", [1, 2, 4])
@pytest.mark.parametrize("nt_type", SMOOTHINGS)
@pytest.mark.parametrize("name", METHODS)
def test_the_tunnel_is_the_statistic_over_noised_images(
    name: str, nt_type: str, at_a_time: int
) -> None:
    model, x = build("resnet_smooth"), images(3)
    target = torch.tensor([0, 1, 2])
    method = METHODS[name](model)
    torch.manual_seed(3)
    found, delta = NoiseTunnel(method).attribute(
        x,
        nt_type=nt_type,
        nt_samples=4,
        nt_samples_batch_size=at_a_time,
        stdevs=0.1,
        target=target,
        group="rotation",
        return_convergence_delta=True,
    )
    torch.manual_seed(3)
    samples = noised(x, 4, at_a_time, 0.1)
    each = torch.stack([method.attribute(s, target=target, group="rotation") for s in samples], 1)
    expected = SMOOTHINGS[nt_type](each)
    torch.testing.assert_close(found, expected)
    assert (found - SMOOTHINGS[nt_type](each[:, :1])).abs().max() > 1e-3 * expected.abs().max()
    assert delta.shape == (12,)
    assert delta.abs().max() < 1e-12


def test_a_tunnel_with_a_standard_deviation_for_each_input() -> None:
    def model(a: Tensor, b: Tensor) -> Tensor:
        return (a.square().mean((2, 3)) * b.tanh().mean((2, 3))).sum(1)

    a, b = images(2), images(2, (5, 6), seed=2)
    method = LieDerivative(model)
    torch.manual_seed(0)
    found = NoiseTunnel(method).attribute((a, b), nt_samples=3, stdevs=(0.1, 0.0), group="scale")
    torch.manual_seed(0)
    samples = noised(a, 3, 3, 0.1)
    each = [method.attribute((s, b), group="scale") for s in samples]
    assert isinstance(found, tuple)
    for i, attribution in enumerate(found):
        torch.testing.assert_close(attribution, torch.stack([e[i] for e in each]).mean(0))


@pytest.mark.parametrize("method", [LieDerivative, LocalEquivarianceError])
@pytest.mark.parametrize("normalize", [False, True])
def test_infidelity_is_its_definition(method: Any, normalize: bool) -> None:
    """E (⟨I, a⟩ - (f(x) - f(x - I)))², over the perturbations that Captum asked for."""
    model, x = build("resnet_smooth"), images()
    attribution = method(model).attribute(x, target=1, group="rotation")
    seen: list[tuple[Tensor, Tensor]] = []

    def perturb(inputs: Tensor) -> tuple[Tensor, Tensor]:
        noise = 0.05 * torch.randn_like(inputs)
        seen.append((noise, inputs - noise))
        return seen[-1]

    found = infidelity(
        model,
        perturb,
        x,
        attribution,
        target=1,
        n_perturb_samples=6,
        max_examples_per_batch=4,
        normalize=normalize,
    )
    products, differences = [], []
    for noise, moved in seen:
        samples = len(noise) // 2
        product = noise * attribution.repeat_interleave(samples, 0)
        products.append(product.sum((1, 2, 3)).view(2, samples))
        change = model(x)[:, 1].repeat_interleave(samples) - model(moved)[:, 1]
        differences.append(change.view(2, samples))
    a, b = torch.cat(products, 1), torch.cat(differences, 1)
    assert a.shape == (2, 6)
    beta = (a * b).mean(1, keepdim=True) / (a * a).mean(1, keepdim=True) if normalize else 1
    torch.testing.assert_close(found, ((beta * a - b) ** 2).mean(1).detach())


def test_infidelity_to_small_moves_vanishes_with_the_fourth_power() -> None:
    """⟨t, a⟩ = t L f_k is the change under a move by t, up to t²: its square falls as t⁴.

    Images that are affine functions of the pixel make the move itself smooth.
    """
    model = build("resnet_smooth")
    row, column = torch.meshgrid(torch.arange(8.0), torch.arange(12.0), indexing="ij")
    ramp = torch.stack([row, column, row - column]).double() / 12
    x = torch.stack([ramp, 1 - ramp])
    group = Translation("x", interpolation="central")
    attribution = LieDerivative(model).attribute(x, target=1, group=group)
    errors = []
    for t in (4e-2, 2e-2, 1e-2):

        def perturb(inputs: Tensor, t: float = t) -> tuple[Tensor, Tensor]:
            return torch.full_like(inputs, -t), group.act(inputs, t)

        errors.append(infidelity(model, perturb, x, attribution, target=1, n_perturb_samples=1))
    change = lie_derivative(model, x, group, target=1) * 1e-2
    assert (errors[-1] < 1e-2 * change**2).all()
    for before, after in pairwise(errors):
        assert (before / after - 16).abs().max() < 4, errors


@pytest.mark.parametrize("norm", [2, float("inf")])
@pytest.mark.parametrize("name", METHODS)
def test_sensitivity_is_its_definition(name: str, norm: float) -> None:
    """max ‖a(x') - a(x)‖ / ‖a(x)‖, over the perturbed images that Captum asked for."""
    model, x = build("resnet_smooth"), images()
    method = METHODS[name](model)
    target = torch.tensor([1, 2])
    seen: list[Tensor] = []

    def in_a_tuple(inputs: Any, **options: Any) -> tuple[Tensor]:
        # Captum gives a tuple and takes one for granted in return; layers return a tensor.
        return (method.attribute(inputs, **options),)

    def perturb(inputs: Any) -> tuple[Tensor]:
        (x,) = inputs if isinstance(inputs, tuple) else (inputs,)
        seen.append(x + 0.05 * torch.randn_like(x))
        return (seen[-1],)

    found = sensitivity_max(
        in_a_tuple if name == "layer" else method.attribute,
        x,
        perturb_func=perturb,
        n_perturb_samples=5,
        max_examples_per_batch=4,
        norm_ord=norm,
        target=target,
        group="rotation",
    )
    plain = method.attribute(x, target=target, group="rotation").flatten(1)
    ratios = []
    for moved in seen:
        samples = len(moved) // 2
        options: Any = {"target": target.repeat_interleave(samples), "group": "rotation"}
        change = method.attribute(moved, **options).flatten(1) - plain.repeat_interleave(samples, 0)
        size = torch.linalg.vector_norm(change, norm, 1).view(2, samples)
        ratios.append(size / torch.linalg.vector_norm(plain, norm, 1)[:, None])
    ratio = torch.cat(ratios, 1)
    assert ratio.shape == (2, 5)
    torch.testing.assert_close(found, ratio.amax(1))
    assert ratio.amax(1).min() > 1.01 * ratio.amin(1).min()


def test_interpolation_puts_a_layer_on_the_image() -> None:
    model, x = build("resnet"), images()
    layer = LayerLieDerivative(model, "conv1").attribute(x, target=1, group="rotation")
    nearest = LayerAttribution.interpolate(layer, (8, 12))
    expected = layer.repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert torch.equal(nearest, expected)
    torch.testing.assert_close(nearest.sum((1, 2, 3)), 16 * layer.sum((1, 2, 3)))
    smooth = LayerAttribution.interpolate(layer, (8, 12), interpolate_mode="bilinear")
    assert torch.equal(smooth, F.interpolate(layer, (8, 12), mode="bilinear"))
