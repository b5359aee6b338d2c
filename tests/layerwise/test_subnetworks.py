"""SubnetworkEquivarianceError: the error of every head network, from one forward-mode pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_lie import Translation, get_group, lie_derivative
from captum_lie.examples import load_images, load_model
from captum_lie.layerwise.subnetworks import MEASURES, SubnetworkEquivarianceError
from captum_lie.layouts import Layout
from tests.toy_models import ReverseOnly, build, images, untyped

MODELS = ["resnet", "resnet_smooth", "vit", "mixer", "embedded_cnn", "embedded_vit"]


def case(name: str) -> tuple[nn.Module, Tensor]:
    if name.startswith("embedded_"):
        return load_model(name.removeprefix("embedded_")).double(), load_images(2)[0].double()
    return build(name), images()


@pytest.mark.parametrize("group", ["translation_x", "rotation", "brightness"])
@pytest.mark.parametrize("name", MODELS)
def test_the_whole_network_has_the_lie_derivative_of_the_model(name: str, group: str) -> None:
    model, x = case(name)
    result = SubnetworkEquivarianceError(model).attribute(x, group)
    derivative = lie_derivative(model, x, group)
    torch.testing.assert_close(result.squared_norm[0], derivative.square().sum(1))
    torch.testing.assert_close(result.lee[0], derivative.square().mean(1))
    torch.testing.assert_close(
        result.relative_to_features[0], derivative.norm(dim=1) / model(x).norm(dim=1)
    )
    assert result.relative_to_generator[0].isnan().all()  # class scores do not move
    assert result.group == group


def chain() -> list[nn.Module]:
    torch.manual_seed(0)
    return [
        nn.Conv2d(3, 4, 3, stride=2, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 6, 3, padding=1),
        nn.MaxPool2d(2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 5),
    ]


def _jvp(head: nn.Module, x: Tensor, tangent: Tensor) -> tuple[Tensor, Tensor]:
    found: Any = torch.func.jvp(lambda x: head(x * 1.0), (x,), (tangent,))
    return found[0], found[1]


@pytest.mark.parametrize("group", ["translation_y", "rotation", "brightness"])
def test_it_is_what_differentiating_each_head_by_hand_gives(group: str) -> None:
    modules = chain()
    model, x, action = nn.Sequential(*modules).double().eval(), images(3), get_group(group)
    result = SubnetworkEquivarianceError(model).attribute(x, group)
    assert [row.module for row in result.rows] == ["", *map(str, range(7))]
    for depth in range(1, 8):
        head = nn.Sequential(*modules[:depth])
        # torch.func: an oracle that shares nothing with duals and hooks.
        y, moved = _jvp(head, x, action.generator(x))
        motion = action.generator(y) if depth <= 4 else torch.zeros_like(y)
        squared = (moved - motion).flatten(1).square().sum(1)
        torch.testing.assert_close(result.squared_norm[depth], squared)
        dim = y[0].numel()
        assert result.dims[depth] == dim
        torch.testing.assert_close(result.lee[depth], squared / dim)
        torch.testing.assert_close(result.per_root_dim[depth], squared / dim**0.5)
        torch.testing.assert_close(
            result.relative_to_features[depth], squared.sqrt() / y.flatten(1).norm(dim=1)
        )
        if depth <= 4:
            torch.testing.assert_close(
                result.relative_to_generator[depth],
                squared.sqrt() / motion.flatten(1).norm(dim=1),
            )


def test_a_stack_of_circular_convolutions_has_no_error_under_fourier_translation() -> None:
    torch.manual_seed(0)
    convs = [nn.Conv2d(c, 4, 3, padding=1, padding_mode="circular") for c in (3, 4, 4)]
    model = nn.Sequential(*convs, nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
    group = Translation("y", interpolation="fourier")
    result = SubnetworkEquivarianceError(model).attribute(images(), group)
    assert result.squared_norm.abs().max() < 1e-24
    assert result.squared_generator[1:4].min() > 1e-3


class Folds(nn.Module):
    """A branch whose layout cannot be told, with two outputs, and a module that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.fold = Fold()
        self.act = nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        a, b, _ = self.fold(self.act(x))
        return self.act(a.permute(0, 2, 1, 3) + b).mean((2, 3))


class Fold(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, None]:
        return x.permute(0, 2, 1, 3), 2 * x, None


def test_unknown_layouts_give_nan_rows_and_can_be_overridden() -> None:
    model, x = Folds(), images(2, (8, 13))
    result = SubnetworkEquivarianceError(model).attribute(x, "rotation")
    table = result.to_dataframe().set_index(["module", "call"])
    assert table.loc[("fold", 0), "output_layout"] == "unknown, nchw"
    assert table.loc[("fold", 0), "dim"] == 2 * 3 * 8 * 13
    assert result.squared_norm[2].isnan().all()
    assert result.squared_norm[[0, 1, 3]].isfinite().all()
    known = SubnetworkEquivarianceError(model, {"fold": (None, Layout("trivial"))})
    assert known.attribute(x, "rotation").squared_norm.isfinite().all()
    with pytest.raises(ValueError, match="Did you mean 'fold'"):
        SubnetworkEquivarianceError(model, {"folt": Layout("nchw")})
    with pytest.raises(TypeError, match="Module"):
        SubnetworkEquivarianceError(untyped(model.forward))


def test_the_table_has_means_and_standard_errors() -> None:
    model, x = build("resnet"), images(5)
    result = SubnetworkEquivarianceError(model).attribute(x, "scale")
    table = result.to_dataframe()
    columns = ["module", "type", "kind", "call", "depth", "is_leaf", "output_layout", "dim"]
    assert list(table.columns)[:8] == columns
    assert list(table["module"]).count("act") == 3
    for name in MEASURES:
        values = getattr(result, name)
        assert values.shape == (len(table), 5)
        assert table[name].to_numpy() == pytest.approx(values.mean(1).numpy(), nan_ok=True)
        stderr = (values.var(1) / 5).sqrt()
        assert table[f"{name}_stderr"].to_numpy() == pytest.approx(stderr.numpy(), nan_ok=True)
    single = SubnetworkEquivarianceError(model).attribute(x[:1], "scale").to_dataframe()
    assert single["lee_stderr"].isna().all()


def test_groups_batches_and_arguments() -> None:
    model, x = build("vit"), images(5)
    method = SubnetworkEquivarianceError(model)
    both = method.attribute(x, ["rotation", "brightness"], internal_batch_size=2)
    assert [result.group for result in both] == ["rotation", "brightness"]
    for result in both:
        whole = method.attribute(x, result.group)
        torch.testing.assert_close(result.squared_norm, whole.squared_norm)
        assert result.rows == whole.rows

    class Scaled(nn.Module):
        def forward(self, x: Tensor, weight: Tensor) -> Tensor:
            return (x * weight).square().mean((2, 3))

    weight = torch.rand(5, 1, 1, 1, dtype=torch.float64)
    parts = SubnetworkEquivarianceError(Scaled()).attribute(
        x, additional_forward_args=weight, internal_batch_size=3
    )
    expected = lie_derivative(Scaled(), x, additional_forward_args=weight).square().sum(1)
    torch.testing.assert_close(parts.squared_norm[0], expected)


class Square(nn.Module):
    def __init__(self, exotic: bool) -> None:
        super().__init__()
        self.exotic = exotic

    def forward(self, x: Tensor) -> Tensor:
        return ReverseOnly.apply(x) if self.exotic else x**2


def test_a_model_without_forward_mode_falls_back() -> None:
    def model(exotic: bool) -> nn.Module:
        torch.manual_seed(0)
        conv = nn.Conv2d(3, 4, 3, padding=1)
        return nn.Sequential(conv, Square(exotic), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()

    expected = SubnetworkEquivarianceError(model(False)).attribute(images(), "rotation")
    with pytest.warns(UserWarning, match="without forward-mode"):
        found = SubnetworkEquivarianceError(model(True)).attribute(images(), "rotation")
    torch.testing.assert_close(found.squared_norm, expected.squared_norm)
    torch.testing.assert_close(found.squared_features, expected.squared_features)
    assert torch.equal(found.dims, expected.dims)
    assert found.rows == expected.rows


class Fails(nn.Module):
    def __init__(self, error: Exception | None) -> None:
        super().__init__()
        self.body, self.error = build("resnet"), error

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        if self.error is not None:
            raise self.error
        return y


@pytest.mark.parametrize("error", [None, KeyError("mine"), RuntimeError("mine")])
def test_nothing_is_changed_also_after_an_exception(error: Exception | None) -> None:
    model, x = Fails(error).eval(), images().requires_grad_()

    def state() -> list[Any]:
        return [
            [len(v) for m in model.modules() for k, v in vars(m).items() if "hooks" in k],
            [(p.requires_grad, p.grad is None) for p in [*model.parameters(), x]],
            [p.numpy().tobytes() for p in model.state_dict().values()],
            x.detach().numpy().tobytes(),
            torch.is_grad_enabled(),
        ]

    before = state()
    method = SubnetworkEquivarianceError(model)
    if error is None:
        assert not method.attribute(x).squared_norm.requires_grad
    else:
        with pytest.raises(type(error), match="mine"):
            method.attribute(x)
    assert state() == before
