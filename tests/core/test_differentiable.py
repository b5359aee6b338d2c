"""Differentiable forward mode on whole functions: numbers, what it refuses, what it leaves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_lie.core.autodiff import differentiable
from captum_lie.core.differentiable import Dual, pushforward
from captum_lie.core.tangents import NoRule, carried
from tests.core.cases import constant
from tests.core.test_differentiable_rules import check
from tests.core.test_engine import REFUSED, RIGHT, random_tangents
from tests.toy_models import Applied, ReverseOnly, build, images

# Reverse mode twice does what forward mode cannot; outputs may be nested, and need not move.
POSSIBLE = {"no forward mode", "a list", "integers"}
# Differences see what autograd is told not to see, or cannot be taken where a value jumps.
HIDDEN = {"detached", "data", "straight through", "without grad", "integers on the way"}
# PyTorch's reverse mode gives NaN at the third time.
NOT_A_NUMBER = {"no rule"}


@pytest.mark.parametrize("name", RIGHT)
def test_functions(name: str) -> None:
    x = images()

    def function(x: Tensor) -> Tensor:
        # PyTorch's forward mode is wrong where the input itself is overwritten.
        return RIGHT[name](x + 0 if name == "in place on the input" else x)

    check(function, x, random_tangents(x, 2), smooth=name not in HIDDEN | NOT_A_NUMBER)


@pytest.mark.parametrize("name", sorted({*REFUSED} - POSSIBLE))
def test_what_it_cannot_do_is_refused(name: str) -> None:
    x = images()
    with differentiable(), pytest.raises((RuntimeError, AttributeError)):
        pushforward(REFUSED[name], (x,), (random_tangents(x),))


@pytest.mark.parametrize("name", ["resnet", "resnet_smooth", "vit", "mixer", "dense"])
@pytest.mark.parametrize("batch", [1, 2])
def test_models(name: str, batch: int) -> None:
    """Non-square images, in-place activations, modules used again, nn's own encoder layer."""
    x = images(batch)
    check(build(name), x, random_tangents(x, 2))


class Normalised(nn.Module):
    """Batch normalisation in training mode, then something that is not linear."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3, dtype=torch.float64)
        nn.init.uniform_(self.norm.weight, 0.5, 1.5)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(x).sin()
        return y


def test_batch_statistics_are_held_along_tangents_and_followed_by_gradients() -> None:
    """Against the normalisation written out, with statistics that are an argument of their own."""
    model, x = Normalised(), images(3)
    t = random_tangents(x, 1)
    weight = constant(*x.shape, seed=4)

    def written_out(x: Tensor, statistics: Tensor) -> Tensor:
        variance, mean = torch.var_mean(statistics, (0, 2, 3), correction=0, keepdim=True)
        scale = model.norm.weight.view(-1, 1, 1) * (variance + model.norm.eps).rsqrt()
        y: Tensor = ((x - mean) * scale).sin()
        return y

    x.requires_grad_()
    output = written_out(x, x)
    moved = torch.func.jvp(lambda z: written_out(z, x), (x,), (t[0],))[1]
    with differentiable():
        found, rows = pushforward(model, (x,), (t,))
    torch.testing.assert_close(found, output)
    torch.testing.assert_close(rows[0], moved)
    expected = torch.autograd.grad((weight * moved).sum(), (x, model.norm.weight))
    result = torch.autograd.grad((weight * rows[0]).sum(), (x, model.norm.weight))
    torch.testing.assert_close(result, expected)


def test_dropout_has_one_mask() -> None:
    x = images()
    torch.manual_seed(0)
    output, (row,) = pushforward(lambda x: F.dropout(x, 0.4), (x,), (2 * x[None],))
    torch.testing.assert_close(row, 2 * output)
    assert (output == 0).any()
    torch.manual_seed(0)
    assert torch.equal(output, F.dropout(x, 0.4))


def test_masks_that_are_drawn_into_a_tensor_do_not_move() -> None:
    """Stochastic depth as it is written everywhere."""

    def drop(x: Tensor) -> Tensor:
        return x * x.new_empty(len(x), 1, 1, 1).bernoulli_(0.5)

    x = images(8)
    output, (row,) = pushforward(drop, (x,), (2 * x[None],))
    torch.testing.assert_close(row, 2 * output)


def test_constants_and_parameters_that_meet_no_tangent_have_gradients() -> None:
    """Weights that are standardised first, position embeddings that are resampled."""
    weight = torch.nn.Parameter(constant(4, 3, 1, 1))

    def function(x: Tensor) -> Tensor:
        centred = weight - weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, centred / centred.std())

    x = images()
    _, (row,) = pushforward(function, (x,), (x[None],))
    expected = torch.autograd.grad(function(x).square().sum(), weight)
    torch.testing.assert_close(torch.autograd.grad(row.square().sum(), weight), expected)


def test_nested_outputs() -> None:
    x = images()
    output, (row,) = pushforward(
        lambda x: {"a": (x**2, 3), "b": [torch.ones(2), None]}, (x,), (x[None],)
    )
    torch.testing.assert_close(output["a"][0], x**2)
    torch.testing.assert_close(row["a"][0], 2 * x**2)
    assert output["a"][1] == 3
    assert torch.equal(row["b"][0], torch.zeros(2))


def test_what_a_model_keeps_is_a_constant_afterwards() -> None:
    kept: list[Tensor] = []

    def keeping(x: Tensor) -> Tensor:
        kept.append(x * 2)
        return x

    x = images()
    pushforward(keeping, (x,), (x[None],))
    assert isinstance(kept[0], Dual)
    torch.testing.assert_close(kept[0] + 1, 2 * x + 1)
    _, (row,) = pushforward(lambda y: y * kept[0], (x,), (x[None],))
    torch.testing.assert_close(row, 2 * x**2)


def test_two_evaluations_do_not_mix() -> None:
    x = images()

    def outer(y: Tensor) -> Any:
        return pushforward(lambda z: z * y, (x,), (x[None],))[1][0]

    with pytest.raises(NoRule, match="two evaluations"):
        pushforward(outer, (x,), (x[None],))


def test_custom_functions_are_as_before() -> None:
    original = torch.autograd.Function.__dict__["apply"]
    x = images()
    with pytest.raises(NoRule, match="ReverseOnly"):
        pushforward(Applied(ReverseOnly), (x,), (x[None],))
    assert torch.autograd.Function.__dict__["apply"] is original


def test_custom_functions_are_refused_beside_an_evaluation_by_the_other_engine() -> None:
    x = images()
    with carried((x,), (x[None],)), pytest.raises(NoRule, match="ReverseOnly"):
        pushforward(Applied(ReverseOnly), (x,), (x[None],))


@pytest.mark.parametrize("name", ["resnet_smooth", "vit", "mixer"])
def test_gradients_of_parameters(name: str) -> None:
    """Against differences of forward mode: three reverse modes are wrong on layer normalisation."""
    model, x = build(name), images()
    t = random_tangents(x, 1)
    along = {name: constant(*p.shape, seed=5) for name, p in model.named_parameters()}

    def moved(step: float) -> Tensor:
        values = {name: p.detach() + step * along[name] for name, p in model.named_parameters()}
        forward = lambda x: torch.func.functional_call(model, values, x)  # noqa: E731
        return torch.func.jvp(forward, (x,), (t[0],))[1].square().sum()

    with differentiable(), torch.no_grad():
        expected = (moved(1e-5) - moved(-1e-5)) / 2e-5
    with differentiable():
        _, (row,) = pushforward(model, (x,), (t,))
    gradients = torch.autograd.grad(
        row.square().sum(), list(model.parameters()), materialize_grads=True
    )
    pairs = zip(gradients, along.values(), strict=True)
    found = sum((g * d).sum() for g, d in pairs)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0.0)


def test_regions_without_autocast() -> None:
    """What a model computes in single precision on purpose stays so."""
    weight = constant(12, 5).float()

    def function(x: Tensor) -> Tensor:
        rough = x @ weight
        with torch.autocast("cpu", enabled=False):
            return rough.float() + x @ weight

    x = images(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        output, (row,) = pushforward(function, (x,), (x[None],))
        expected = function(x)
    assert output.dtype == row.dtype == torch.float32
    assert torch.equal(output, expected)
    torch.testing.assert_close(row, expected)


def test_a_small_moving_tensor_in_a_larger_sum_is_no_view_of_itself() -> None:
    """Tangents have the memory of their tensor, which other views may share and write to."""

    def function(x: Tensor) -> Tensor:
        total = x.mean((2, 3), keepdim=True) + constant(*x.shape)
        return total.view(len(x), -1).mul_(2).sin()

    check(function, images(), random_tangents(images(), 2))
