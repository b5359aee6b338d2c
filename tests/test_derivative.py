"""Laws of the Lie derivative: forward mode against reverse mode, differences and closed forms."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_lie import (
    Affine,
    Brightness,
    LocalEquivarianceError,
    OneParameterGroup,
    Rotation,
    Stretch,
    Translation,
    aliasing_error,
    get_groups,
    lie_derivative,
)
from captum_lie.core.derivative import tangent_basis
from captum_lie.layouts import NCHW
from captum_lie.resampling import BORDERS, INTERPOLATIONS, Border, Interpolation, slope
from tests.toy_models import ReverseOnly, build, images

SMOOTH = ["resnet_smooth", "vit", "mixer"]


def by_reverse_mode(model: nn.Module, x: Tensor, group: OneParameterGroup) -> Tensor:
    """Literal re-derivation: the whole Jacobian by reverse mode, times the generator."""
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        jacobian: Any = torch.autograd.functional.jacobian(model, x)
    return torch.einsum("nkmchw,mchw->nk", jacobian, group.generator(x))


def by_differences(model: nn.Module, x: Tensor, group: OneParameterGroup, h: float) -> Tensor:
    """Central difference of the action, extrapolated once."""
    with torch.no_grad():

        def central(step: float) -> Tensor:
            return (model(group.act(x, step)) - model(group.act(x, -step))) / (2 * step)

        return (4 * central(h / 2) - central(h)) / 3


def close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    return bool((a - b).norm() <= tolerance * b.norm())


@pytest.mark.parametrize("name", ["resnet", *SMOOTH])
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_forward_mode_equals_reverse_mode(name: str, interpolation: Interpolation) -> None:
    model, x = build(name), images()
    groups = get_groups("all", interpolation=interpolation)
    derivatives = lie_derivative(model, x, groups)
    assert derivatives.shape == (10, 2, 5)
    for group, derivative in zip(groups, derivatives, strict=True):
        assert close(derivative, by_reverse_mode(model, x, group), 1e-12), group


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize(("interpolation", "tolerance"), [("fourier", 1e-8), ("central", 1e-5)])
def test_equals_central_differences_of_the_action(
    name: str, interpolation: Interpolation, tolerance: float
) -> None:
    model, x = build(name), images()
    groups = get_groups("all", interpolation=interpolation, border="circular")
    for group, derivative in zip(groups, lie_derivative(model, x, groups), strict=True):
        # Cubic convolution is only once differentiable: its error is linear in the step.
        step = 1e-3 if interpolation == "fourier" else 1e-7
        assert close(derivative, by_differences(model, x, group, step), tolerance), group


@pytest.mark.parametrize("name", SMOOTH)
def test_bilinear_equals_differences_where_the_image_has_no_kinks(name: str) -> None:
    # A ramp has the same slope on both sides of every pixel; only its border has a kink, which
    # the model does not see.
    columns, rows = torch.arange(12.0).double(), torch.arange(8.0).double()[:, None]
    slopes = torch.tensor([[0.1, 0.03], [-0.05, 0.08], [0.02, -0.11]]).double()
    ramp = slopes[:, 0, None, None] * columns + slopes[:, 1, None, None] * rows
    inside = torch.zeros(8, 12).double()
    inside[1:-1, 1:-1] = 1
    base = build(name)
    x = ramp[None]

    class Inside(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return base(x * inside)

    model = Inside()
    groups = get_groups("all")
    for group, derivative in zip(groups, lie_derivative(model, x, groups), strict=True):
        assert close(derivative, by_differences(model, x, group, 1e-3), 1e-5), group


@pytest.mark.parametrize("border", BORDERS)
def test_bilinear_translation_equals_the_one_sided_difference(border: Border) -> None:
    model, x = build("mixer"), images()
    for axis in ("x", "y"):
        group = Translation(axis, border=border)
        with torch.no_grad():
            f0, f1, f2 = (model(group.act(x, i * 1e-5)) for i in range(3))
        one_sided = (-3 * f0 + 4 * f1 - f2) / 2e-5
        assert close(lie_derivative(model, x, group), one_sided, 1e-6)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("axis", ["x", "y"])
def test_circular_convolution_and_mean_do_not_see_translation(
    interpolation: Interpolation, axis: Any
) -> None:
    conv = build("dense")
    group = Translation(axis, interpolation=interpolation, border="circular")
    lee, x = LocalEquivarianceError(lambda x: conv(x).mean((2, 3))), images()
    assert lee.score(x, group).max() < 1e-28
    stretch = Stretch(axis, interpolation=interpolation, border="circular")
    assert lee.score(x, stretch).min() > 1e-8


def test_dense_output_that_moves_with_the_input_has_no_error() -> None:
    conv, x = build("dense"), images()
    for interpolation in INTERPOLATIONS:
        group = Translation("x", interpolation=interpolation, border="circular")
        moving = lie_derivative(conv, x, group, output_layout=NCHW)
        staying = lie_derivative(conv, x, group)
        assert moving.shape == conv(x).shape
        assert moving.norm() < 1e-12 * staying.norm()
    # Brightness does not commute with the bias: L f = J x - f(x) = -bias.
    bias = lie_derivative(conv, x, Brightness(), output_layout=NCHW)
    own = conv.get_parameter("conv.bias").detach()
    torch.testing.assert_close(bias, -own[None, :, None, None].expand_as(bias))


def test_linear_in_the_group() -> None:
    model, x = build("resnet"), images()
    c = (0.3, -0.2, 0.1, 0.5, -0.7, 0.2)
    basis = [Affine(tuple(row)) for row in torch.eye(6).tolist()]
    parts = lie_derivative(model, x, basis)
    combined = lie_derivative(model, x, Affine(c))
    assert close(combined, torch.tensordot(torch.tensor(c, dtype=torch.float64), parts, 1), 1e-12)


def test_nine_spatial_groups_cost_six_tangents() -> None:
    basis, mixing = tangent_basis(get_groups("all"))
    assert len(basis) == 7  # six fields and brightness
    assert mixing is not None
    assert mixing.shape == (10, 7)
    few, no_mixing = tangent_basis(get_groups(["rotation", "scale"]))
    assert [g.name for g in few] == ["rotation", "scale"]
    assert no_mixing is None
    mixed = [*get_groups("all"), Rotation(interpolation="fourier")]
    assert len(tangent_basis(mixed)[0]) == 8  # rules do not mix


@pytest.mark.parametrize("size", [1, 3, 7, 20])
def test_independent_of_the_batch_split(size: int) -> None:
    model, x = build("resnet"), images(5)
    whole = lie_derivative(model, x, "all")
    split = lie_derivative(model, x, "all", internal_batch_size=size)
    torch.testing.assert_close(split, whole)
    one_by_one = torch.cat([lie_derivative(model, x[i : i + 1], "all") for i in range(5)], 1)
    torch.testing.assert_close(one_by_one, whole)


@pytest.mark.parametrize("size", [(8, 12), (12, 6), (10, 15)])
@pytest.mark.parametrize("axis", ["x", "y"])
def test_theorem_1(size: tuple[int, int], axis: Any) -> None:
    x = images(2, size)
    for stride in (1, 2, 3, 5):
        if size[0] % stride or size[1] % stride:
            continue
        dim, length = (-1, size[1]) if axis == "x" else (-2, size[0])
        group = Translation(axis, interpolation="fourier")
        moved = lie_derivative(lambda x, s=stride: x[..., ::s, ::s], x, group)
        sub = x[..., ::stride, ::stride]
        unit = (length - 1) / 2 / stride  # output pixels per unit of the group
        direct = moved - unit * slope(sub, dim, "fourier", "circular")
        expected = direct.square().flatten(1).mean(1)
        torch.testing.assert_close(aliasing_error(x, stride, axis), expected, rtol=1e-6, atol=1e-20)
        assert stride == 1 or expected.min() > 0.1


def test_theorem_1_has_no_error_below_the_new_nyquist_limit() -> None:
    columns = torch.arange(16).double()
    x = torch.cos(2 * torch.pi * 3 * columns / 16 + 0.3).expand(1, 2, 16, 16)
    assert aliasing_error(x, 2) < 1e-25
    assert aliasing_error(x, 4) > 1


def test_theorem_1_needs_a_divisor() -> None:
    with pytest.raises(ValueError, match="positive divisor"):
        aliasing_error(images(), 5)


class Squared(nn.Module):
    """By an operator without forward mode, or by PyTorch's own."""

    def __init__(self, native: bool) -> None:
        super().__init__()
        self.body = build("mixer")
        self.native = native

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return y**2 if self.native else ReverseOnly.apply(y)


def test_falls_back_to_reverse_over_reverse_and_says_so_once() -> None:
    x = images()
    model = Squared(native=False)
    expected = lie_derivative(Squared(native=True), x, "all")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = lie_derivative(model, x, "all")
        again = lie_derivative(model, x, "rotation")
    (said,) = (w for w in caught if "reverse-over-reverse" in str(w.message))
    assert said.category is UserWarning
    assert "implement the jvp function" in str(said.message)  # why, in PyTorch's words
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(again, expected[2])


class Recurrent(nn.Module):
    """Rows of the image as a sequence, through nn.LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(36, 7, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x.transpose(1, 2).flatten(2))[0][:, -1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_lstm(dtype: Any) -> None:
    x = images(dtype=dtype)
    torch.manual_seed(0)
    model = Recurrent().to(dtype).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = lie_derivative(model, x, ["rotation", "scale"])
    oracle = by_reverse_mode(model.double(), x.double(), Rotation())
    assert close(found[0].double(), oracle, 1e-5 if dtype == torch.float32 else 1e-12)


def test_a_broken_model_says_itself_why() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, 3))
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes"):
        lie_derivative(model, images(dtype=torch.float32), "rotation")


def test_a_model_that_cannot_be_differentiated_is_explained() -> None:
    class Opaque(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.sum((2, 3))

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            raise NotImplementedError("no backward either")

    with pytest.raises(RuntimeError, match=r"cannot be differentiated.*no backward either"):
        lie_derivative(lambda x: Opaque.apply(x), images(), "rotation")


def test_constant_output_has_zero_derivative() -> None:
    constant = lie_derivative(lambda x: torch.ones(len(x), 3), images(), ["rotation", "scale"])
    assert constant.shape == (2, 2, 3)
    assert constant.abs().max() == 0


def test_runs_inside_inference_mode_and_no_grad() -> None:
    model, x = build("vit"), images()
    expected = lie_derivative(model, x, "all")
    with torch.inference_mode():
        found = lie_derivative(model, x * 1, "all")
    with torch.no_grad():
        torch.testing.assert_close(lie_derivative(model, x, "all"), found)
    torch.testing.assert_close(found, expected)


def test_builtin_functions_without_a_signature() -> None:
    x = images(2)
    xi = Rotation().generator(x)
    torch.testing.assert_close(lie_derivative(torch.square, x, "rotation"), 2 * x * xi)


def test_fallbacks_of_vmap_are_no_warning_to_users() -> None:
    torch.manual_seed(0)
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    model = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), *pool).double().eval()
    model = model.to(memory_format=torch.channels_last)  # such pooling has no batching rule
    x = images(2).contiguous(memory_format=torch.channels_last)
    groups = ["rotation", "scale"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = lie_derivative(model, x, groups)
    alone = torch.stack([lie_derivative(model, x, group) for group in groups])
    torch.testing.assert_close(found, alone)
