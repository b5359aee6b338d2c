"""LayerLieDerivative: sums to the layer's contribution, keeps Captum's conventions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from captum.attr import LayerAttribution, NoiseTunnel
from torch import Tensor, nn

from captum_lie import Translation, get_group, lie_derivative
from captum_lie.attribution.layer_lie_derivative import LayerLieDerivative
from captum_lie.examples import load_images, load_model
from captum_lie.layerwise import LayerwiseEquivarianceError
from captum_lie.layouts import Layout
from tests import toy_models
from tests.toy_models import Applied, Fails, ReverseOnly, WrongBackward, images


def build(name: str, **options: Any) -> Any:  # Any: mypy sees no submodules on nn.Module
    return toy_models.build(name, **options)


Case = tuple[nn.Module, Tensor, float]


def case(name: str) -> Case:
    """A toy model in double precision, or one of the embedded models in single."""
    if name.startswith("embedded_"):
        model = load_model(name.removeprefix("embedded_"))
        return model.double(), load_images(2)[0].double(), 1e-10
    return build(name), images(), 1e-12


def total(attribution: Any) -> Tensor:
    """Sum of everything that belongs to each example, ``[N]``."""
    parts = attribution if isinstance(attribution, tuple) else (attribution,)
    return sum((part.flatten(1).sum(1) for part in parts), torch.zeros(()))


MODELS = ["resnet", "resnet_smooth", "vit", "mixer", "embedded_cnn", "embedded_vit"]


@pytest.mark.parametrize("name", MODELS)
def test_the_sum_is_the_contribution_of_every_resolved_module(name: str) -> None:
    model, x, tolerance = case(name)
    result = LayerwiseEquivarianceError(model, output_fn=None).attribute(
        x, group="rotation", measure="target", target=1
    )
    scale = result.contributions.nan_to_num().abs().max()
    modules = dict(model.named_modules())
    once = [i for i, row in enumerate(result.rows) if row.resolved]
    names = {result.rows[i].module for i in once}
    several = {row.module for row in result.rows if row.call > 0}
    tested = sorted(names - several)
    assert len(tested) >= 5
    layers = [modules[layer] for layer in tested]
    attributions, deltas = LayerLieDerivative(model, layers).attribute(
        x, target=1, group="rotation", return_convergence_delta=True
    )
    for layer, attribution, delta in zip(tested, attributions, deltas, strict=True):
        i = next(i for i in once if result.rows[i].module == layer)
        error = (total(attribution) - result.contributions[i]).abs().max()
        assert error <= tolerance * scale, layer
        assert delta.shape == (2,)
        assert delta.abs().max() <= tolerance * scale, layer


def small_net() -> tuple[nn.Sequential, nn.Module, nn.Module, nn.Module]:
    torch.manual_seed(0)
    first = nn.Conv2d(3, 4, 3, stride=2, padding=1)
    middle = nn.Sequential(nn.SiLU(), nn.Conv2d(4, 4, 3, padding=1))
    last = nn.Sequential(nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    return nn.Sequential(first, middle, last).double().eval(), first, middle, last


@pytest.mark.parametrize("group", ["translation_x", "rotation", "brightness"])
def test_it_is_what_splitting_the_network_by_hand_gives(group: str) -> None:
    model, first, middle, last = small_net()
    x, action = images(), get_group(group)
    a = first(x).detach()
    b = middle(a).detach()

    def rest_from_b(b: Tensor) -> Tensor:
        return last(b)[:, 2].sum()

    def rest_from_a(a: Tensor) -> Tensor:
        return rest_from_b(middle(a))

    moved = torch.func.jvp(middle, (a,), (action.generator(a),))[1]
    expected = torch.func.grad(rest_from_b)(b) * (moved - action.generator(b))
    method = LayerLieDerivative(model, middle)
    torch.testing.assert_close(method.attribute(x, target=2, group=group), expected)
    flux = method.attribute(x, target=2, group=group, attribute_to_layer_input=True)
    torch.testing.assert_close(flux, torch.func.grad(rest_from_a)(a) * action.generator(a))
    # ... which is the Lie derivative of the rest of the network, taken as a network of its own.
    rest = lie_derivative(nn.Sequential(middle, last), a, group, target=2)
    torch.testing.assert_close(total(flux), rest)


def test_a_circular_convolution_contributes_nothing_under_translation() -> None:
    conv = build("dense")
    model = nn.Sequential(conv, nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for axis in ("x", "y"):
        group = Translation(axis, interpolation="fourier")
        zero, other = LayerLieDerivative(model, [conv, model[1]]).attribute(
            images(), target=1, group=group
        )
        assert zero.abs().max() < 1e-14
        assert other.abs().max() > 1e-4
        flux = LayerLieDerivative(model, conv).attribute(
            images(), target=1, group=group, attribute_to_layer_input=True
        )
        assert flux.abs().max() > 1e-4


def test_a_stack_of_linear_circular_convolutions_contributes_nothing_anywhere() -> None:
    torch.manual_seed(0)
    convs = [nn.Conv2d(c, 4, 3, padding=1, padding_mode="circular") for c in (3, 4, 4)]
    model = nn.Sequential(*convs, nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
    group = Translation("x", interpolation="fourier")
    attributions = LayerLieDerivative(model, convs).attribute(images(), target=0, group=group)
    assert all(a.abs().max() < 1e-14 for a in attributions)
    assert lie_derivative(model, images(), group, target=0).abs().max() < 1e-14


def test_shapes_names_lists_and_interpolation() -> None:
    model, x = build("resnet"), images()
    by_name = LayerLieDerivative(model, "conv1").attribute(x, target=1)
    conv1, pool = LayerLieDerivative(model, [model.conv1, "pool"]).attribute(x, target=1)
    assert by_name.shape == (2, 8, 2, 3)
    assert by_name.dtype == x.dtype
    assert not by_name.requires_grad
    assert torch.equal(conv1, by_name)
    assert pool.shape == (2, 8, 2, 3)
    flux = LayerLieDerivative(model, "pool").attribute(x, target=1, attribute_to_layer_input=True)
    assert flux.shape == (2, 8, 4, 6)
    assert LayerAttribution.interpolate(by_name, x.shape[-2:]).shape == (2, 8, 8, 12)
    method = LayerLieDerivative(model, "conv1")
    assert method.layer is model.conv1
    assert method.has_convergence_delta()
    assert hasattr(method.attribute, "__wrapped__")


class TwoStreams(nn.Module):
    """Takes and returns two images of different sizes, and one thing that is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 2, 3, padding=1), nn.Conv2d(3, 4, 3, stride=2, padding=1)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, None]:
        return self.a(x * y.mean((1, 2, 3), keepdim=True)), self.b(y), None


class UsesTwoStreams(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.two = TwoStreams()

    def forward(self, x: Tensor) -> Tensor:
        a, b, _ = self.two(x, y=x.square())
        return torch.cat([a.tanh().mean((2, 3)), b.tanh().mean((2, 3))], 1)


@pytest.mark.parametrize("to_input", [False, True])
def test_tuples_give_tuples(to_input: bool) -> None:
    torch.manual_seed(0)
    model, x = UsesTwoStreams().double(), images(3)
    method = LayerLieDerivative(model, model.two)
    result, delta = method.attribute(
        x,
        target=torch.tensor([0, 3, 5]),
        attribute_to_layer_input=to_input,
        return_convergence_delta=True,
    )
    shapes = [(3, 3, 8, 12)] * 2 if to_input else [(3, 2, 8, 12), (3, 4, 4, 6)]
    assert isinstance(result, tuple)
    assert [tuple(r.shape) for r in result] == shapes
    assert delta.abs().max() < 1e-13
    assert total(result).abs().max() > 1e-4
    split = method.attribute(
        x,
        target=torch.tensor([0, 3, 5]),
        attribute_to_layer_input=to_input,
        internal_batch_size=2,
    )
    for part, whole in zip(split, result, strict=True):
        torch.testing.assert_close(part, whole)


def test_calls_of_one_module_are_summed_if_their_shapes_agree() -> None:
    model, x = build("mixer"), images()  # its norm is called twice, on tokens of one shape
    result = LayerwiseEquivarianceError(model, output_fn=None).attribute(
        x, measure="target", target=1
    )
    rows = [i for i, row in enumerate(result.rows) if row.module == "norm"]
    assert len(rows) == 2
    attribution = LayerLieDerivative(model, "norm").attribute(x, target=1)
    assert attribution.shape == (2, 24, 16)
    torch.testing.assert_close(total(attribution), result.contributions[rows].sum(0))
    with pytest.raises(ValueError, match=r"called 3 times.*shapes"):
        LayerLieDerivative(build("resnet"), "act").attribute(x, target=1)


def test_any_callable_and_data_parallel() -> None:
    model, x = build("resnet"), images()
    expected = LayerLieDerivative(model, model.conv1).attribute(x, target=1, group="scale")
    parallel = nn.DataParallel(model)
    for forward, layer in (
        (lambda x: model(x), model.conv1),
        (model.forward, model.conv1),
        (parallel, model.conv1),
        (parallel, "conv1"),
        (parallel, "module.conv1"),
    ):
        found = LayerLieDerivative(forward, layer, device_ids=[0]).attribute(
            x, target=1, group="scale"
        )
        torch.testing.assert_close(found, expected)


def test_a_callable_with_more_arguments_and_inputs() -> None:
    model, (a, b) = build("resnet"), (images(3), images(3, seed=2))

    def forward(a: Tensor, b: Tensor, weight: Tensor, shift: float) -> Tensor:
        return model(a * weight + b + shift)

    weight = torch.rand(3, 1, 1, 1, dtype=torch.float64)
    method = LayerLieDerivative(forward, [model.conv1, model.conv2])
    options: Any = {"target": 1, "additional_forward_args": (weight, 0.1)}
    for whole, part in zip(
        method.attribute((a, b), **options),
        method.attribute((a, b), internal_batch_size=2, **options),
        strict=True,
    ):
        torch.testing.assert_close(part, whole)
        assert whole.abs().max() > 0


class Folding(nn.Module):
    """A layer whose features are pixels of the batch: no layout can be told from the shape."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 1, 3).sin()  # [N, H, C, W]


class Folds(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fold = Folding()

    def forward(self, x: Tensor) -> Tensor:
        return self.fold(x).permute(0, 2, 1, 3).square().mean((2, 3))


def test_an_unknown_layout_is_an_error_that_says_how_to_override() -> None:
    model, x = Folds(), images(2, (8, 13))
    with pytest.raises(ValueError, match=r"output of 'fold'.*\(2, 8, 3, 13\).*layouts={'fold'"):
        LayerLieDerivative(model, "fold").attribute(x, target=1)
    known = {"fold": (Layout("nchw"), Layout("trivial"))}
    _, delta = LayerLieDerivative(model, "fold", layouts=known).attribute(
        x, target=1, return_convergence_delta=True
    )
    assert delta.abs().max() < 1e-13
    with pytest.raises(ValueError, match="output of 'layer'"):
        LayerLieDerivative(lambda x: model(x), model.fold).attribute(x, target=1)
    named = {"layer": known["fold"]}
    LayerLieDerivative(lambda x: model(x), model.fold, layouts=named).attribute(x, target=1)
    # The flux needs the layout of the input only.
    flux = LayerLieDerivative(model, "fold").attribute(x, target=1, attribute_to_layer_input=True)
    torch.testing.assert_close(total(flux), lie_derivative(model, x, target=1))


def test_errors_name_the_cause() -> None:
    model, x = build("vit"), images()
    with pytest.raises(ValueError, match=r"'layer.self_attn.out_proj'.*never ran"):
        LayerLieDerivative(model, "layer.self_attn.out_proj").attribute(x, target=1)
    with pytest.raises(ValueError, match="never ran"):
        LayerLieDerivative(model, nn.ReLU()).attribute(x, target=1)
    with pytest.raises(ValueError, match="Did you mean 'embed'"):
        LayerLieDerivative(model, "embd")
    with pytest.raises(ValueError, match=r"not a torch.nn.Module"):
        LayerLieDerivative(lambda x: model(x), "embed")
    with pytest.raises(TypeError, match="A layer is"):
        LayerLieDerivative(model, None).attribute(x, target=1)
    for target in (None, 9):
        with pytest.raises((AssertionError, IndexError)):
            LayerLieDerivative(model, "embed").attribute(x, target=target)
    with pytest.raises(ValueError, match="training mode"):
        LayerLieDerivative(lambda x: model(x), model.layer.train()).attribute(x, target=1)


def state(model: Any, x: Tensor) -> dict[str, Any]:
    with torch.no_grad():
        output = model(x.clone())
    return {
        "output": output.numpy().tobytes(),
        "hooks": [
            len(hooks)
            for module in model.modules()
            for name, hooks in vars(module).items()
            if "hooks" in name
        ],
        "flags": [(p.requires_grad, p.grad is None) for p in [*model.parameters(), x]],
        "weights": [p.numpy().tobytes() for p in model.state_dict().values()],
        "modules": [name for name, _ in model.named_modules()],
        "grad mode": torch.is_grad_enabled(),
        "mha": torch.backends.mha.get_fastpath_enabled(),
    }


@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: lambda x: m(x)])
@pytest.mark.parametrize("trainable", [False, True])
def test_nothing_is_changed_also_after_an_exception(
    wrap: Callable[[nn.Module], Any], trainable: bool
) -> None:
    model, x = Fails().eval(), images().requires_grad_()
    model.requires_grad_(trainable)
    before = state(model, x)
    method = LayerLieDerivative(wrap(model), model.body.conv1)
    result = method.attribute(x, target=1, return_convergence_delta=True)
    assert not any(r.requires_grad for r in result)
    assert state(model, x) == before
    model.armed = True
    with pytest.raises(KeyError, match="the model failed"):
        method.attribute(x, target=1)
    model.armed = False
    assert state(model, x) == before


def test_in_place_layers_see_and_give_right_values() -> None:
    model, x = build("resnet"), images()

    class Once(nn.Module):
        def __init__(self, inplace: bool) -> None:
            super().__init__()
            self.stem, self.act = model.stem, nn.ReLU(inplace=inplace)

        def forward(self, x: Tensor) -> Tensor:
            y = self.stem(x)
            y = self.act(y)
            y += 1  # in place, after the layer
            return y.square().mean((2, 3)).cumsum(1)

    for layer in ("stem", "act"):
        for to_input in (False, True):
            results = [
                LayerLieDerivative(Once(inplace), layer).attribute(
                    x, target=7, group="scale", attribute_to_layer_input=to_input
                )
                for inplace in (False, True)
            ]
            torch.testing.assert_close(results[0], results[1])
            assert results[0].abs().max() > 0


class Squares(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x**2


def test_the_delta_flags_a_wrong_derivative() -> None:
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    x = images()
    for to_input in (False, True):
        method = LayerLieDerivative(nn.Sequential(Applied(WrongBackward), pooled), "0")
        result, delta = method.attribute(
            x,
            target=1,
            group="rotation",
            attribute_to_layer_input=to_input,
            return_convergence_delta=True,
        )
        truth = LayerLieDerivative(nn.Sequential(Squares(), pooled), "0").attribute(
            x, target=1, group="rotation", attribute_to_layer_input=True
        )
        # Reverse mode is half too large at the input.
        expected = total(truth) * (0.5 if to_input else -0.5)
        torch.testing.assert_close(delta, expected)
        again = method.compute_convergence_delta(
            result, x, target=1, group="rotation", attribute_to_layer_input=to_input
        )
        assert torch.equal(again, delta)


def test_a_layer_without_forward_mode_falls_back() -> None:
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.warns(UserWarning, match="without forward-mode"):
        found = LayerLieDerivative(nn.Sequential(Applied(ReverseOnly), pooled), "0").attribute(
            images(), target=1, group="rotation"
        )
    expected = LayerLieDerivative(nn.Sequential(Squares(), pooled), "0").attribute(
        images(), target=1, group="rotation"
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("nt_type", ["smoothgrad", "vargrad"])
def test_noise_tunnel(nt_type: str) -> None:
    model, x = build("resnet"), images()
    torch.manual_seed(0)
    options: Any = {"target": torch.tensor([1, 2]), "group": "rotation"}
    attribution, delta = NoiseTunnel(LayerLieDerivative(model, "conv1")).attribute(
        x,
        nt_type=nt_type,
        nt_samples=3,
        nt_samples_batch_size=2,
        stdevs=0.01,
        return_convergence_delta=True,
        **options,
    )
    assert attribution.shape == (2, 8, 2, 3)
    assert delta.shape == (6,)
    assert delta.abs().max() < 1e-12
    quiet = NoiseTunnel(LayerLieDerivative(model, "conv1")).attribute(
        x, nt_samples=2, stdevs=0.0, **options
    )
    plain = LayerLieDerivative(model, "conv1").attribute(x, **options)
    torch.testing.assert_close(quiet, plain)
