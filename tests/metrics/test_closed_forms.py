"""Metrics whose value is known: invariant models, linear models, and the link to LEE."""

from __future__ import annotations

from math import inf, pi

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from captum_lie import LocalEquivarianceError, get_groups
from captum_lie.groups import Brightness
from captum_lie.layouts import NCHW
from captum_lie.metrics import (
    MetricResult,
    SincKernel,
    bandlimit,
    consistency,
    discrete_group_error,
    eq_r,
    eq_t,
    eq_t_frac,
    group_error_curve,
    group_sample_error,
    rotate,
)
from captum_lie.metrics.comparison import ComparisonOptions
from captum_lie.resampling import Interpolation
from tests.toy_models import build, images

SMOOTH = ("resnet_smooth", "vit", "mixer")


def psnr(result: MetricResult) -> float:
    assert result.psnr is not None
    return result.psnr


def dense_invariant(x: Tensor) -> Tensor:
    """Commutes with circular shifts, to the last bit: every pixel is treated alike."""
    return x * x.roll(1, -1) + x.roll(2, -2).sin()


def invariant(x: Tensor) -> Tensor:
    """Does not see circular shifts, to the last bit: a maximum does not depend on order."""
    return dense_invariant(x).amax((2, 3))


def position(x: Tensor) -> Tensor:
    """Sees nothing but where the brightest column is: every shift changes the class."""
    return x.mean((1, 2))


def test_circularly_invariant_model_has_consistency_one() -> None:
    x = images(5, (12, 14))
    table = consistency(invariant, x, labels=invariant(x).argmax(1))
    assert [r.variant for r in table] == [
        "unshifted",
        "pairs",
        "unshifted_correct",
        "pairs_correct",
    ]
    assert [r.value for r in table] == [0.0] * 4
    # Five images are not enough to be sure of it.
    low, high = table["unshifted"].confidence_interval
    assert low == 0
    assert high > 0.2
    # The same model is not invariant to shifts that bring in other pixels.
    assert consistency(invariant, x, border="zero")["unshifted"].value > 0
    assert consistency(invariant, x, border="reflect")["unshifted"].value > 0


def test_circularly_invariant_model_has_infinite_psnr() -> None:
    x = images(3, (12, 16))
    assert eq_t(invariant, x, border="circular").psnr == inf
    dense = eq_t(
        dense_invariant, x, border="circular", output_layout=NCHW, output_fn=None, margin=1
    )
    assert dense.psnr == inf
    assert eq_t(invariant, x, border="zero").value > 0


def test_consistency_of_a_model_that_sees_position_only() -> None:
    """The class is the brightest column: unchanged only by shifts with dx = 0 (mod width)."""
    x = torch.zeros(400, 1, 4, 24)
    x[..., 12] = 1
    table = consistency(position, x, max_shift_pixels=5, n_samples=12)
    still = table["unshifted"].transformations["dx_px"] == 0
    assert np.allclose(table["unshifted"].per_example, 1 - still.mean(1))
    # Two independent shifts agree as often as one agrees with none: once in 11.
    for result in table:
        assert abs(result.value - 10 / 11) < 4 * result.stderr
    drawn = table["pairs"].transformations
    assert {int(v) for v in np.unique(drawn["dy_px"])} == set(range(-5, 6))
    pairs = drawn["dx_px"][0]
    equal = np.mean([pairs[i] == pairs[j] for i in range(12) for j in range(12) if i != j])
    assert table["pairs"].per_example[0] == pytest.approx(1 - equal)


def test_consistency_conditioned_on_correct_predictions() -> None:
    """A model that is right where it is constant, and wrong where it is not."""
    x = torch.zeros(6, 1, 4, 24)
    x[:3, ..., 12] = 1

    def model(x: Tensor) -> Tensor:
        return torch.cat([position(x), x.new_full((len(x), 1), 0.01)], 1)

    table = consistency(model, x, labels=torch.full((6,), 24), max_shift_pixels=5)
    correct = table["unshifted_correct"]
    assert correct.n == 3
    assert correct.index.tolist() == [3, 4, 5]
    assert correct.value == 0
    assert table["unshifted"].value > 0.2
    assert correct.transformations["dx_px"].shape == (3, 10)


def test_crop_shows_the_model_real_pixels_only() -> None:
    sizes = set()

    def model(x: Tensor) -> Tensor:
        sizes.add(tuple(x.shape[1:]))
        assert (x > 0).all()
        return x.mean((2, 3))

    result = consistency(model, torch.rand(2, 3, 20, 24) + 0.1, border="crop", max_shift_pixels=4)
    assert sizes == {(3, 12, 16)}
    assert result[0].border == "crop"


def test_eq_t_of_a_linear_model_with_zero_border() -> None:
    """f = sum of the pixels: the shift loses what leaves the image, here one bright pixel."""
    x = torch.zeros(1, 1, 8, 16, dtype=torch.float64)
    x[..., 3, 0] = 1  # out(p) = x(p + d) loses column 0 for every dx > 0
    result = eq_t(lambda x: x.sum((2, 3)), x, output_fn=None, n_samples=50, max_shift=0.25)
    dx, dy = (result.transformations[k][0] for k in ("dx_px", "dy_px"))
    assert set(dx) == set(range(-4, 5))
    assert set(dy) == {-2, -1, 0, 1, 2}
    assert result.value == pytest.approx(np.mean(dx > 0))
    assert result.psnr == pytest.approx(-10 * np.log10(np.mean(dx > 0)))


def test_fractional_eq_t_of_a_linear_model() -> None:
    """f = ⟨wave, x⟩ for the same wave: the response to a shift is a cosine."""
    wave = torch.cos(2 * pi / 32 * 5 * torch.arange(32, dtype=torch.float64)).expand(1, 1, 32, 32)
    result = eq_t_frac(
        lambda x: (wave * x).mean((2, 3)),
        wave,
        output_fn=None,
        border="circular",
        kernel=SincKernel(8, "kaiser"),
    )
    dx = result.transformations["dx_px"][0]
    expected = ((np.cos(2 * pi / 32 * 5 * dx) - 1) / 2) ** 2
    assert result.value == pytest.approx(expected.mean(), rel=1e-4)
    assert np.abs(dx).max() <= 4
    assert (dx % 1 != 0).all()


def test_reach_is_a_share_of_each_side() -> None:
    x = images(2, (16, 64))
    moved = eq_t_frac(lambda x: x.mean((2, 3)), x, n_samples=200, max_shift=0.25).transformations
    assert 15 < np.abs(moved["dx_px"]).max() <= 16
    assert 3.8 < np.abs(moved["dy_px"]).max() <= 4
    turned = eq_r(lambda x: x.mean((2, 3)), x, n_samples=200, max_angle=0.5).transformations
    assert 0.48 < np.abs(turned["angle_rad"]).max() <= 0.5
    assert not np.array_equal(moved["dx_px"] / 16, moved["dy_px"] / 4)


def test_dense_eq_r_is_the_formula_of_karras() -> None:
    """Mean of (R* f(R x) − R f(x))² over the pixels where both are known."""
    x = images(1, (120, 112))
    result = eq_r(torch.square, x, output_fn=None, output_layout=NCHW, n_samples=1, max_angle=0.7)
    angle = torch.from_numpy(result.transformations["angle_rad"][:, 0])
    assert angle.abs() > 0.1
    turned, _ = rotate(x, angle, "zero")
    limited, known = bandlimit(turned.square(), angle, "zero")
    expected, inside = rotate(x.square(), angle, "zero")
    valid = (inside & known).expand_as(x)
    assert result.value == pytest.approx((limited - expected)[valid].square().mean().item())
    assert 0 < int(valid.sum()) < int((inside.expand_as(x)).sum())


def test_dense_outputs_of_equivariant_models_have_high_psnr() -> None:
    """Pointwise linear maps commute with every resampling; strided ones with whole strides."""
    x = images(2, (64, 64))

    def pointwise(x: Tensor) -> Tensor:
        return 0.3 - x[:, :2] + 2 * x[:, 1:]

    dense: ComparisonOptions = {"output_layout": NCHW, "output_fn": None, "n_samples": 3}
    assert psnr(eq_t_frac(pointwise, x, **dense)) > 200
    assert psnr(eq_t(lambda x: x[..., ::4, ::2], x, **dense)) > 200
    # Rotation: exact but for the frequencies that f(T x) is made to lose.
    smooth = torch.nn.functional.avg_pool2d(x, 9, 1, 4)
    turned = eq_r(lambda x: x, smooth, **dense)
    assert turned.psnr is not None
    assert turned.psnr > 55
    # A map that sticks to the grid is far from that.
    ramp = torch.linspace(0, 1, 64, dtype=torch.float64)
    stuck = eq_r(lambda x: x * ramp, smooth, **dense)
    assert stuck.psnr is not None
    assert stuck.psnr < 20


def test_strided_output_moves_by_whole_output_pixels() -> None:
    shifts = eq_t(
        lambda x: x[..., ::4, ::2], images(4, (64, 32)), output_layout=NCHW, output_fn=None
    ).transformations
    assert set(np.unique(shifts["dy_px"])) == {-8, -4, 0, 4, 8}
    assert set(np.unique(shifts["dx_px"])) == {-4, -2, 0, 2, 4}


def test_margin_keeps_the_border_rule_out() -> None:
    """A 3×3 convolution is wrong beside the moved border only."""
    model = build("dense")
    conv = nn.Conv2d(3, 4, 3, padding=1, dtype=torch.float64)
    conv.load_state_dict(model.get_submodule("conv").state_dict())
    x = images(2, (32, 32))
    dense: ComparisonOptions = {"output_layout": NCHW, "output_fn": None}
    inner: ComparisonOptions = {**dense, "margin": 5}
    assert eq_t(conv, x, **dense).value > 1e-4
    assert psnr(eq_t(conv, x, **inner)) > 200


def test_group_sample_error_of_a_linear_model_is_analytic() -> None:
    """Brightness moves f = w·x by t f(x): error t² f(x)², with mean r²/3 f(x)² over t."""
    x = images(3)
    result = group_sample_error(
        lambda x: x.sum((2, 3)), x, "brightness", radius=0.2, output_fn=None, n_samples=4000
    )[0]
    f = x.sum((2, 3)).square().mean(1).numpy()
    t = result.transformations["t"]
    assert np.allclose(result.per_example, (t**2).mean(1) * f)
    assert np.allclose(result.per_example, 0.2**2 / 3 * f, rtol=0.1)
    assert np.abs(t).max() <= 0.2


@pytest.mark.parametrize("axis", ["x", "y"])
def test_group_sample_error_of_a_linear_model_under_translation(axis: str) -> None:
    dim = -1 if axis == "x" else -2
    phase = 2 * pi / 16 * 3 * torch.arange(16, dtype=torch.float64)
    wave = torch.cos(phase.movedim(0, 0)).expand(1, 1, 16, 16)
    wave = wave if dim == -1 else wave.mT
    result = group_sample_error(
        lambda x: (wave * x).mean((2, 3)),
        wave,
        f"translation_{axis}",
        interpolation="fourier",
        output_fn=None,
    )[0]
    t = result.transformations["t"]
    assert result.parameters["radius_unit"] == "px"
    assert result.border == "circular"
    assert result.value == pytest.approx((((np.cos(2 * pi / 16 * 3 * t) - 1) / 2) ** 2).mean())


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("interpolation", ["central", "fourier"])
def test_group_sample_error_over_t_squared_tends_to_lee(
    name: str, interpolation: Interpolation
) -> None:
    model, x = build(name), images(2)
    groups = get_groups("all", interpolation=interpolation)
    lee = LocalEquivarianceError(model).score(x, groups).numpy()
    radius = {g.name: 1e-5 for g in groups}
    table = group_sample_error(model, x, groups, radius=radius)
    for i, result in enumerate(table):
        px = {"translation_x": (12 - 1) / 2, "translation_y": (8 - 1) / 2}.get(result.variant, 1)
        t = result.transformations["t"] / px
        assert np.abs(result.per_example / (t**2).mean(1) / lee[:, i] - 1).max() < 0.01


def test_dense_group_sample_error_over_t_squared_tends_to_lee() -> None:
    model, x = build("dense"), images(2, (10, 10))
    groups = get_groups("all", interpolation="central", border="circular")
    dense = LocalEquivarianceError(model, output_fn=None, output_layout=NCHW)
    lee = dense.score(x, groups).numpy()
    table = group_sample_error(
        model, x, groups, radius=1e-5, output_fn=None, output_layout=NCHW, n_samples=4
    )
    for i, result in enumerate(table):
        px = (10 - 1) / 2 if result.variant.startswith("translation") else 1
        t = result.transformations["t"] / px
        scale = (t**2).mean(1)
        assert np.allclose(result.per_example / scale, lee[:, i], rtol=0.01, atol=1e-7)
    assert table["translation_x"].value < 1e-3 * table["rotation"].value  # it commutes


def test_curve_is_flat_where_the_first_order_picture_holds_and_bends_after() -> None:
    model, x = build("vit"), images(2)
    group = get_groups("rotation", interpolation="fourier")[0]
    curve = group_error_curve(model, x, group, t=[0.001, 0.003, 1.0])
    ratio = curve.to_dataframe()["error_over_t2"]
    lee = LocalEquivarianceError(model).score(x, group).mean().item()
    assert np.allclose(ratio[:2], lee, rtol=0.01)
    assert abs(ratio[2] / lee - 1) > 0.1
    assert curve[0].parameters["t_unit"] == "rad"


def test_curve_in_pixels_is_lee_in_the_groups_own_parameter() -> None:
    model, x = build("mixer"), images(2)
    group = get_groups("translation_x", interpolation="central")[0]
    curve = group_error_curve(model, x, group, t=[0.001])
    lee = LocalEquivarianceError(model).score(x, group).mean().item()
    assert curve[0].parameters["error_over_t2"] == pytest.approx(lee, rel=0.01)
    assert group_error_curve(model, x, "scale")[-1].parameters["t"] == pytest.approx(0.25)


def test_discrete_groups_of_models_with_known_symmetry() -> None:
    x = images(3, (8, 8))

    def left_minus_right(x: Tensor) -> Tensor:
        return x[..., :4].mean((2, 3)) - x[..., 4:].mean((2, 3))

    table = discrete_group_error(left_minus_right, x, output_fn=None)
    known = left_minus_right(x)
    for element in ("flip_x", "rot180"):
        assert table[element].value == pytest.approx((2 * known).square().mean().item())
    assert table["flip_y"].value < 1e-25
    turned = x[..., :4, :].mean((2, 3)) - x[..., 4:, :].mean((2, 3))
    change = {e: table[e].per_example for e in ("rot90", "rot270")}
    # A positive quarter turn brings the left half to ... (T x)(p) = x(A p): the top reads the left.
    quarter = left_minus_right(x.rot90(-1, (-2, -1)))
    assert np.allclose(change["rot90"], (quarter - known).square().mean(1))
    assert np.allclose(change["rot270"], (-quarter - known).square().mean(1))
    assert np.allclose(quarter.abs(), turned.abs())


def test_rot90_is_the_quarter_turn_of_eq_r() -> None:
    x = images(1, (8, 8))
    seen: list[Tensor] = []

    def spy(x: Tensor) -> Tensor:
        seen.append(x)
        return x.mean((2, 3))

    discrete_group_error(spy, x, ["rot90"])
    turned, _ = rotate(x, torch.tensor([pi / 2], dtype=torch.float64), "zero")
    torch.testing.assert_close(seen[1], turned)


def test_dense_discrete_groups_undo_the_motion() -> None:
    x = images(2, (8, 8))
    symmetric = discrete_group_error(torch.tanh, x, output_fn=None, output_layout=NCHW)
    assert all(r.value == 0 for r in symmetric)
    moving = discrete_group_error(
        lambda x: x - x.roll(1, -1), x, ["flip_y", "flip_x"], output_fn=None, output_layout=NCHW
    )
    assert moving["flip_y"].value == 0
    assert moving["flip_x"].value > 0.01


def test_inverse_of_every_group_is_used_for_dense_outputs() -> None:
    """Pointwise models commute with brightness' inverse exactly, up to a linear factor."""
    x = images(2)
    result = group_sample_error(
        lambda x: 3 * x, x, [Brightness()], radius=0.5, output_fn=None, output_layout=NCHW
    )
    assert result[0].value < 1e-25
