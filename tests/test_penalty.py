"""Laws of the training penalty: it is LEE, its gradient is right, and the model stays as it was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import log2
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from captum_lie import (
    Brightness,
    LiePenalty,
    LocalEquivarianceError,
    OneParameterGroup,
    Rotation,
    Scale,
    Translation,
    get_groups,
)
from captum_lie.errors import InvalidTypeError, InvalidValueError, UnsupportedModelError
from tests.toy_models import Applied, ReverseOnly, build, images

MODELS = ["resnet", "resnet_smooth", "vit", "mixer"]
SMOOTH = ["resnet_smooth", "vit", "mixer"]


def features(output: Tensor) -> Tensor:
    return output.tanh() * output.flip(1)


OUTPUTS: dict[str, dict[str, Any]] = {
    "softmax": {},
    "logits": {"output_fn": None},
    "features": {"output_fn": features},
}


def directional(
    value: Callable[[nn.Module, dict[str, Tensor]], Tensor],
    gradients: Sequence[Tensor],
    model: nn.Module,
    step: float = 1e-5,
) -> tuple[Tensor, Tensor]:
    """A derivative along a random direction of the parameters: by the gradient, by differences."""
    generator = torch.Generator().manual_seed(11)
    named = dict(model.named_parameters())
    along = {k: torch.randn(p.shape, generator=generator, dtype=p.dtype) for k, p in named.items()}

    def at(s: float) -> Tensor:
        with torch.no_grad():
            return value(model, {k: p + s * along[k] for k, p in named.items()})

    by_gradient = torch.stack(
        [(g * d).sum() for g, d in zip(gradients, along.values(), strict=True)]
    ).sum()
    return by_gradient, (at(step) - at(-step)) / (2 * step)


def gradient(value: Tensor, model: nn.Module) -> tuple[Tensor, ...]:
    return torch.autograd.grad(value, list(model.parameters()), materialize_grads=True)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize(("batch", "dtype"), [(1, torch.float64), (2, torch.float32)])
def test_equals_the_mean_score(name: str, output: str, batch: int, dtype: Any) -> None:
    """On images that are not square."""
    model, x = build(name, dtype=dtype), images(batch, dtype=dtype)
    options = OUTPUTS[output]
    for groups in ("rotation", ["scale", "brightness"], "all"):
        expected = LocalEquivarianceError(model, **options).score(x, groups).mean()
        found = LiePenalty(groups, **options)(model, x)
        assert found.shape == ()
        assert found.dtype == dtype
        tolerance = 1e-10 if dtype == torch.float64 else 1e-5
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=0.0)


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("batch", [1, 2])
def test_gradient_equals_differences_of_the_score(name: str, output: str, batch: int) -> None:
    model, x = build(name), images(batch)
    groups, options = ["rotation", "shear_x", "brightness"], OUTPUTS[output]

    def score(model: nn.Module, parameters: dict[str, Tensor]) -> Tensor:
        moved = lambda x: functional_call(model, parameters, x)  # noqa: E731
        return LocalEquivarianceError(moved, **options).score(x, groups).mean()

    gradients = gradient(LiePenalty(groups, **options)(model, x), model)
    found, expected = directional(score, gradients, model)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("interpolation", ["bilinear", "central", "fourier"])
def test_gradient_follows_the_resampling_rule(interpolation: Any) -> None:
    model, x = build("resnet_smooth"), images()
    groups = get_groups(["translation_x", "scale"], interpolation=interpolation)

    def score(model: nn.Module, parameters: dict[str, Tensor]) -> Tensor:
        moved = lambda x: functional_call(model, parameters, x)  # noqa: E731
        return LocalEquivarianceError(moved).score(x, groups).mean()

    value = LiePenalty(groups)(model, x)
    torch.testing.assert_close(value, LocalEquivarianceError(model).score(x, groups).mean())
    found, expected = directional(score, gradient(value, model), model)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0.0)


def consistency(
    model: Callable[[Tensor], Tensor], x: Tensor, group: OneParameterGroup, *ts: float
) -> Tensor:
    """The Π-model's loss over t², ``E ‖f(T_t x) - f(x)‖² / (t² dim)`` (Eq. 7), mean over the ts."""
    with torch.no_grad():
        p = model(x).softmax(1)
        return torch.stack(
            [((model(group.act(x, t)).softmax(1) - p) / t).square().mean() for t in ts]
        ).mean()


@pytest.mark.parametrize(
    ("group", "symmetric", "order"),
    [
        (Rotation(interpolation="fourier"), False, 1),
        (Rotation(interpolation="fourier"), True, 2),
        (Scale(interpolation="central"), False, 1),
        (Translation("x", interpolation="bilinear"), False, 1),  # away from its kink
        (Brightness(), False, 1),
        (Brightness(), True, 2),
    ],
)
@pytest.mark.parametrize("name", SMOOTH)
def test_consistency_over_the_square_of_the_step_tends_to_it(
    name: str, group: OneParameterGroup, symmetric: bool, order: int
) -> None:
    """Eq. 8: linearly in t, and quadratically where both signs of it are averaged."""
    model, x = build(name), images()
    limit = LiePenalty(group)(model, x).detach()
    steps = [(2e-3 if symmetric else 1e-4) / 2**k for k in range(4)]
    errors = [
        float((consistency(model, x, group, *((t, -t) if symmetric else (t,))) - limit).abs())
        for t in steps
    ]
    assert errors[0] < 0.05 * float(limit)
    orders = [log2(a / b) for a, b in pairwise(errors)]
    assert orders == pytest.approx([order] * 3, abs=0.1)


def test_random_directions_are_unbiased() -> None:
    """Value and gradient, over many draws, within four standard errors."""
    model, x = build("resnet_smooth"), images(2)
    groups = ["rotation", "translation_x", "scale", "brightness"]
    exact = LiePenalty(groups)
    penalty = LiePenalty(groups, directions="random", seed=3)
    expected = exact(model, x)
    weight = gradient(expected, model)[0]
    draws, gradients = [], []
    for _ in range(300):
        value = penalty(model, x)
        draws.append(value.detach())
        gradients.append((gradient(value, model)[0] * weight).sum() / weight.square().sum())
    for sample, wanted in ((draws, expected.detach()), (gradients, torch.ones(()))):
        values = torch.stack(sample)
        stderr = values.std() / len(values) ** 0.5
        assert stderr < 0.1 * wanted
        assert (values.mean() - wanted).abs() < 4 * stderr


def test_the_mean_over_all_signs_is_exact() -> None:
    model, x = build("vit"), images(1)
    groups = ["rotation", "brightness"]
    penalty = LiePenalty(groups, directions="random")
    values = {round(float(penalty(model, x)), 12) for _ in range(20)}
    assert len(values) == 2  # equal signs and different ones
    expected = LocalEquivarianceError(model).score(x, groups).mean()
    assert sum(values) / 2 == pytest.approx(float(expected), rel=1e-6)


def test_the_seed_decides_and_images_have_signs_of_their_own() -> None:
    model, x = build("vit"), images(4)
    penalty, same = (LiePenalty("all", directions="random", seed=5) for _ in range(2))
    whole = [penalty(model, x) for _ in range(2)]
    assert whole[0] != whole[1]
    assert same(model, x) == whole[0]
    parts = [LiePenalty("all", directions="random", seed=s)(model, x) for s in (5, 6)]
    assert parts[0] == whole[0] != parts[1]
    twice = torch.cat([x[:1]] * 8)
    scores = LiePenalty(["rotation", "brightness"], directions="random")
    alone = {round(float(scores(model, x[:1])), 10) for _ in range(20)}
    assert round(float(scores(model, twice)), 10) not in alone


@pytest.mark.parametrize("name", MODELS)
def test_batches_may_be_split(name: str) -> None:
    model, x = build(name), images(5)
    penalty = LiePenalty(["rotation", "scale"])
    parts = penalty(model, x[:2]) * 2 + penalty(model, x[2:]) * 3
    torch.testing.assert_close(penalty(model, x), parts / 5)
    torch.testing.assert_close(
        gradient(penalty(model, x), model), gradient(parts / 5, model), rtol=1e-8, atol=1e-12
    )


class ShiftInvariant(nn.Module):
    """Circular convolutions, squares, the mean: no translation of a band-limited image shows."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular", dtype=torch.float64)
        self.head = nn.Linear(4, 5, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.conv(x).square().mean((2, 3)))
        return y


class BrightnessInvariant(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3 * 7 * 9, 5, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(nn.functional.normalize(x.flatten(1)))
        return y


@pytest.mark.parametrize(
    ("model", "group", "other"),
    [
        (ShiftInvariant(), Translation("x", interpolation="fourier"), Rotation()),
        (BrightnessInvariant(), Brightness(), Rotation()),
    ],
)
def test_an_invariant_model_has_no_penalty_and_no_gradient(
    model: nn.Module, group: OneParameterGroup, other: OneParameterGroup
) -> None:
    x = images(2, (7, 9))
    value, elsewhere = LiePenalty(group)(model, x), LiePenalty(other)(model, x)
    assert elsewhere > 1e-8
    assert value < 1e-20 * elsewhere
    for zero, some in zip(gradient(value, model), gradient(elsewhere, model), strict=True):
        assert zero.norm() <= 1e-10 * some.norm()


def test_functions_and_nested_outputs() -> None:
    x = images()
    weight = torch.rand(3, 5, dtype=torch.float64, requires_grad=True)

    def forward(x: Tensor) -> dict[str, Any]:
        return {"scores": x.square().mean((2, 3)) @ weight, "name": "mine"}

    penalty = LiePenalty("rotation", output_fn=lambda output: output["scores"].softmax(1))
    output, value = penalty.with_output(forward, x)
    assert output["name"] == "mine"
    torch.testing.assert_close(output["scores"], forward(x)["scores"])
    expected = LocalEquivarianceError(lambda x: forward(x)["scores"]).score(x, "rotation").mean()
    torch.testing.assert_close(value, expected)
    assert torch.autograd.grad(value, weight)[0].norm() > 0


def test_several_inputs_move_together() -> None:
    model, x, y = build("resnet"), images(seed=1), images(seed=2)
    forward = lambda x, y: model(x * y)  # noqa: E731
    expected = LocalEquivarianceError(forward).score((x, y), ["rotation", "scale"]).mean()
    torch.testing.assert_close(LiePenalty(["rotation", "scale"])(forward, (x, y)), expected)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoints(reentrant: bool) -> None:
    model, x = build("mixer"), images()
    expected = LiePenalty("rotation")(model, x)

    def forward(x: Tensor) -> Tensor:
        y: Tensor = checkpoint(model, x * 1, use_reentrant=reentrant)
        return y

    found = LiePenalty("rotation")(forward, x)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient(found, model), gradient(expected, model))


def test_no_grad_and_frozen_models_have_a_value() -> None:
    model, x = build("vit"), images()
    expected = LiePenalty("rotation")(model, x)
    with torch.no_grad():
        value = LiePenalty("rotation")(model, x)
    assert not value.requires_grad
    torch.testing.assert_close(value, expected)
    frozen = LiePenalty("rotation")(model.requires_grad_(False), x)
    assert not frozen.requires_grad
    torch.testing.assert_close(frozen, expected)


@pytest.mark.parametrize("name", ["resnet", "vit", "mixer"])
def test_autocast(name: str) -> None:
    """The output is the plain one, the penalty that of single precision, roughly."""
    model, x = build(name, dtype=torch.float32), images(4, dtype=torch.float32)
    expected = LiePenalty("rotation")(model, x)
    with torch.autocast("cpu", torch.bfloat16):
        output, value = LiePenalty("rotation").with_output(model, x)
        plain = model(x)
    assert output.dtype == plain.dtype == torch.bfloat16
    assert value.dtype == torch.float32
    torch.testing.assert_close(output, plain, rtol=0.02, atol=0.02)
    torch.testing.assert_close(value, expected, rtol=0.2, atol=0.0)
    exact, rough = (torch.cat([g.flatten() for g in gradient(v, model)]) for v in (expected, value))
    assert rough.dtype == torch.float32
    assert torch.cosine_similarity(exact, rough, dim=0) > 0.95


def test_users_can_mend_errors() -> None:
    model, x = build("resnet"), images()
    with pytest.raises(InvalidValueError, match="Did you mean 'random'"):
        LiePenalty("rotation", directions=cast(Any, "randm"))
    with pytest.raises(InvalidValueError, match="rotation"):
        LiePenalty("rotatoin")
    with pytest.raises(InvalidTypeError, match="floating point"):
        LiePenalty("rotation")(model, (x * 255).byte())
    with pytest.raises(InvalidValueError, match="at least two classes"):
        LiePenalty("rotation")(lambda x: x.mean((1, 2, 3)), x)
    with pytest.raises(UnsupportedModelError, match="ReverseOnly"):
        LiePenalty("rotation")(Applied(ReverseOnly), x)
