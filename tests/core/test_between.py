"""What is done between convolution, normalisation and activation counts, seen or unseen.

Whoever folds one into the other, or lets one wait, is held to this: weights may change in between,
tensors be written to through an alias without tangents, results be kept.
"""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils.dlpack import from_dlpack

from captum_lie.core.tangents import Dual, NoRule, pushforward

Function = Callable[[Tensor], Tensor]


def _pieces(seed: int, size: int = 3) -> tuple[nn.Conv2d, nn.Module]:
    torch.manual_seed(seed)
    norm = nn.BatchNorm2d(6).double()
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    norm.running_mean = torch.randn(6).double()
    norm.running_var = torch.rand(6).double() + 0.5
    return nn.Conv2d(6, 6, size).double(), norm.eval()


CONV, NORM = _pieces(0)
MEAN, VARIANCE = NORM.get_buffer("running_mean"), NORM.get_buffer("running_var")
POINT = _pieces(1, size=1)[0].to(memory_format=torch.channels_last)


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    weight = CONV.weight.detach().clone()
    yield
    CONV.weight.data.copy_(weight)


def plainly(x: Tensor) -> Tensor:
    return torch.relu_(NORM(CONV(x)))


def used_again(x: Tensor) -> Tensor:
    y = CONV(x)
    return NORM(y) * NORM(y) + y.sin()


def input_overwritten(x: Tensor) -> Tensor:
    x = x * 1.0
    y = CONV(x)
    x[:, 1].mul_(3)
    return NORM(y) + x[:, :, 1:-1, 1:-1] + y


def input_overwritten_by_name(x: Tensor) -> Tensor:
    x = x * 1.0
    y = CONV(x)
    torch.ops.aten.mul_(self=x, other=3)
    return NORM(y)


def input_overwritten_through_an_alias(x: Tensor) -> Tensor:
    x = x * 1.0
    alias = x.detach()
    y = CONV(x)
    alias.mul_(-3)
    return NORM(y).sin()


def result_overwritten(x: Tensor) -> Tensor:
    y = CONV(x)
    z = NORM(y)
    y.mul_(2)
    return z + y


def weight_swapped(x: Tensor) -> Tensor:
    own = CONV.weight.data.clone()
    CONV.weight.data.copy_(own.sign())
    y = CONV(x)
    CONV.weight.data.copy_(own)
    return NORM(y) + y


def weight_replaced(x: Tensor) -> Tensor:
    own = CONV.weight.data
    CONV.weight.data = own.sign()
    y = CONV(x)
    CONV.weight.data = own
    return NORM(y)


def one_buffer_for_two(x: Tensor) -> Tensor:
    buffer = CONV.weight.detach() * 2
    y = torch.conv2d(x, buffer)
    torch.mul(buffer, -0.5, out=buffer)
    return NORM(y) + NORM(torch.conv2d(x.sin(), buffer))


def a_choice_by_layout(x: Tensor) -> Tensor:
    y = POINT(x)
    return NORM(y.sin() if y.is_contiguous() else y.cos())


def another_convolution_after_an_error(x: Tensor) -> Tensor:
    try:
        y = torch.conv2d(x, CONV.weight[:, :3])
    except RuntimeError:
        y = CONV(x)
    return NORM(y)


def convolution_kept(x: Tensor) -> Tensor:
    y = CONV(x)
    z = torch.relu_(NORM(y))
    return z + y


def convolution_overwritten(x: Tensor) -> Tensor:
    y = CONV(x)
    z = NORM(y)
    y.mul_(-2)
    return torch.relu_(z) + y


def convolution_overwritten_through_a_view(x: Tensor) -> Tensor:
    y = CONV(x)
    view = y[:, 1:4]
    z = NORM(y)
    view.mul_(-2)
    return torch.relu_(z)


def convolution_overwritten_through_a_late_view(x: Tensor) -> Tensor:
    y = CONV(x)
    z = NORM(y)
    y[:, 1:4].mul_(-2)
    return torch.relu_(z).sum((2, 3)) * y.mean((2, 3))


def convolution_overwritten_through_an_alias(x: Tensor) -> Tensor:
    y = CONV(x)
    alias = y.detach()
    z = NORM(y)
    alias.mul_(-2)
    return torch.relu_(z)


def convolution_overwritten_through_a_late_alias(x: Tensor) -> Tensor:
    y = CONV(x)
    z = NORM(y)
    y.detach().mul_(-2)
    return torch.relu_(z)


def convolution_overwritten_as_data(x: Tensor) -> Tensor:
    y = CONV(x)
    z = NORM(y)
    y.data.mul_(-2)
    return torch.relu_(z)


def convolution_written_to_by_name(x: Tensor) -> Tensor:
    y = CONV(x)
    z = NORM(y)
    torch.ops.aten.mul_(self=y, other=-2)
    return torch.relu_(z)


def view_of_a_convolution_that_is_gone(x: Tensor) -> Tensor:
    y = CONV(x)
    view = y[:, :3]
    z = NORM(y)
    del y
    return torch.relu_(z)[:, :3] * view


def statistics_changed(x: Tensor) -> Tensor:
    own = MEAN.clone()
    z = NORM(CONV(x))
    MEAN.add_(3)
    z = torch.relu_(z)
    MEAN.copy_(own)
    return z


def normalised_twice(x: Tensor) -> Tensor:
    y = CONV(x)
    a, b = NORM(y), NORM(y)
    del y
    return torch.relu_(a) * b.sin_()


def normalised_again_after_the_first_is_gone(x: Tensor) -> Tensor:
    y = CONV(x)
    NORM(y).relu_()
    z = NORM(y)
    del y
    return z.relu_()


def normalised_again_after_an_activation_of_the_first(x: Tensor) -> Tensor:
    y = CONV(x)
    a = NORM(y)
    b = torch.relu(a)
    c = NORM(y)
    del y
    return a.relu_() * b + c.relu_()


def a_view_before_an_activation_in_place(x: Tensor) -> Tensor:
    z = NORM(CONV(x))
    view = z[:, 2:]
    torch.relu_(z)
    return view


def normalisation_used_before_and_after(x: Tensor) -> Tensor:
    z = NORM(CONV(x))
    a = torch.relu(z)
    b = torch.sin(z)
    torch.relu_(z)
    return a * b + z


def normalisation_of_what_is_added(x: Tensor) -> Tensor:
    y = CONV(x)
    z = NORM(y)
    z += y
    return z * y


def normalisation_added_to_its_origin(x: Tensor) -> Tensor:
    y = CONV(x)
    z = NORM(y)
    y += z
    return z * y


def normalisation_added_to_itself(x: Tensor) -> Tensor:
    a, b, c = NORM(CONV(x)), NORM(CONV(x)), NORM(CONV(x.sin()))
    a.add_(a)
    return a * (b + b) + (c + b)


def two_normalisations_summed(x: Tensor) -> Tensor:
    a, b, c = NORM(CONV(x)), NORM(CONV(x.sin())), NORM(CONV(x.cos()))
    total = a + b
    c += a
    return torch.relu_(total) * b + c * a


def a_smaller_summand(x: Tensor) -> Tensor:
    z = NORM(CONV(x))
    row = x.mean((0, 2, 3))[:, None, None]
    z += row
    return NORM(CONV(x)) + row + row.add(z, alpha=2) + z.add(row, alpha=-3)


def sums_with_a_factor(x: Tensor) -> Tensor:
    y = x[:, :, 1:-1, 1:-1]
    z = NORM(CONV(x))
    z.add_(y, alpha=-2)
    return NORM(CONV(x)).add(y, alpha=3) + NORM(CONV(x)).sub(y) + z


def activations(x: Tensor) -> Tensor:
    makers = (
        torch.relu, torch.relu_, F.relu6, F.hardtanh_, F.leaky_relu, F.leaky_relu_, F.silu,
        F.hardswish, F.gelu, torch.sigmoid_, torch.tanh_, lambda z: F.silu(z, inplace=True),
        lambda z: F.relu6(z, inplace=True), lambda z: F.hardswish(z, inplace=True), torch.sign,
    )  # fmt: skip
    return torch.cat([f(NORM(CONV(x))) for f in makers])


def activations_of_what_is_kept(x: Tensor) -> Tensor:
    y = CONV(x)
    results = []
    for f in (torch.relu_, F.hardtanh_, F.leaky_relu_, torch.sigmoid_):
        z = NORM(y)
        results += [f(z), z]
    return torch.cat([*results, y])


def channels_last(x: Tensor) -> Tensor:
    z = NORM(POINT(x.to(memory_format=torch.channels_last)))
    return torch.relu_(z).permute(0, 2, 3, 1).flatten(1)


def one_dimension(x: Tensor) -> Tensor:
    y = torch.conv1d(x.flatten(2), torch.ones(6, 6, 3).double() / 18)
    return torch.relu_(F.batch_norm(y, MEAN, VARIANCE)) + F.batch_norm(y, MEAN, VARIANCE)


def what_a_convolution_refuses(x: Tensor) -> Tensor:
    """Each branch is taken whose convolution PyTorch would not do."""
    wrong: list[Function] = [
        lambda x: torch.conv1d(x, CONV.weight),
        lambda x: torch.conv2d(x[0], CONV.weight[0]),
        lambda x: torch.conv2d(x[None], CONV.weight[None]),
        lambda x: torch.conv2d(x, CONV.weight, MEAN.float()),
        lambda x: torch.conv2d(x, CONV.weight, CONV.weight[0, 0, 0]),
        lambda x: F.batch_norm(x, MEAN[:1], VARIANCE),
        lambda x: F.batch_norm(x, MEAN, VARIANCE[:1]),
        lambda x: F.batch_norm(x, MEAN, VARIANCE, MEAN[:1]),
        lambda x: NORM(CONV(x)).clamp_(min=torch.ones(3, 2, 6, 5, 7).double()),
    ]
    for i, function in enumerate(wrong):
        try:
            x = x + function(x).sum()
        except RuntimeError:
            x = x * (2 + i)
    return x


def what_is_refused_after_all(x: Tensor) -> Tensor:
    z = CONV(x)
    for refused in (NORM(z), z):
        with suppress(RuntimeError):
            refused.clamp_(min=torch.full((3, *z.shape), 0.2).double())
        x = x + refused.sum()
    return x


def complex_numbers(x: Tensor) -> Tensor:
    return torch.view_as_real(torch.conv2d(x * (1 + 2j), CONV.weight * (2 - 1j)))


def convolutions_without_a_batch(x: Tensor) -> Tensor:
    y = torch.conv2d(x[0], CONV.weight, CONV.bias, 2, "valid")
    z = torch.conv1d(x[0, :1, 0], x[1, :1, :1, :5], padding="same")
    return torch.cat([y.flatten(), z.flatten(), torch.conv2d(x[0], x[:, :, :3, :3]).flatten()])


class Resurrected:
    """Keeps a tensor in a cycle, and hands it on when Python's collector comes for it."""

    def __init__(self, x: Tensor, kept: list[Tensor]) -> None:
        self.x, self.kept, self.me = x, kept, self

    def __del__(self) -> None:
        self.kept.append(self.x)


def a_last_reference_in_a_cycle(x: Tensor) -> Tensor:
    kept: list[Tensor] = []
    holder = Resurrected(CONV(x), kept)
    z = NORM(holder.x)
    del holder
    gc.collect()
    z = torch.relu_(z)
    return z + kept.pop()


def a_normalisation_brought_back(x: Tensor) -> Tensor:
    kept: list[Tensor] = []
    y = CONV(x)
    holder = Resurrected(NORM(y), kept)
    del holder
    gc.collect()
    y.mul_(3)
    return torch.relu_(kept.pop()) + y


@pytest.mark.parametrize(
    "function",
    [what_a_convolution_refuses, what_is_refused_after_all, complex_numbers,
     convolutions_without_a_batch, a_last_reference_in_a_cycle,
     a_normalisation_brought_back, convolution_kept, convolution_overwritten,
     convolution_overwritten_through_a_view,
     convolution_overwritten_through_a_late_view, convolution_overwritten_through_an_alias,
     convolution_overwritten_through_a_late_alias, convolution_overwritten_as_data,
     convolution_written_to_by_name, view_of_a_convolution_that_is_gone, statistics_changed,
     normalised_twice, normalised_again_after_the_first_is_gone,
     normalised_again_after_an_activation_of_the_first, a_view_before_an_activation_in_place,
     normalisation_used_before_and_after, normalisation_of_what_is_added,
     normalisation_added_to_its_origin, normalisation_added_to_itself, two_normalisations_summed,
     a_smaller_summand, sums_with_a_factor, activations, activations_of_what_is_kept,
     channels_last, one_dimension, plainly, used_again, input_overwritten,
     input_overwritten_by_name, input_overwritten_through_an_alias, result_overwritten,
     weight_swapped, weight_replaced, one_buffer_for_two, a_choice_by_layout,
     another_convolution_after_an_error],
)  # fmt: skip
def test_derivatives_are_those_of_torch(function: Function) -> None:
    torch.manual_seed(2)
    x, tangents = torch.rand(2, 6, 7, 9).double(), torch.rand(3, 2, 6, 7, 9).double()
    ours = pushforward(function, (x.clone(),), (tangents.clone(),))
    for i, tangent in enumerate(tangents):
        with torch.no_grad(), forward_ad.dual_level():
            output = function(forward_ad.make_dual(x.clone(), tangent.clone()))
            torch.testing.assert_close(ours[i], forward_ad.unpack_dual(output).tangent)


def test_what_a_hook_keeps_is_what_there_was() -> None:
    kept: list[Tensor] = []

    def keeping(x: Tensor) -> Tensor:
        h = x * 1.0
        y = CONV(h)
        kept.extend((h, y))
        return NORM(y)

    x = torch.rand(2, 6, 7, 9).double()
    expected = CONV(x).detach()
    pushforward(keeping, (x,), (x[None],))
    h, y = kept
    CONV.weight.data.mul_(2)
    h.mul_(3)
    torch.testing.assert_close(y * 1.0, expected)


def test_what_a_hook_keeps_of_what_waits() -> None:
    kept: list[Tensor] = []

    def keeping(x: Tensor) -> Tensor:
        y = CONV(x)
        kept.append(NORM(y))  # its convolution is gone by the end
        kept.append(y)
        z = NORM(y)
        kept.append(z)
        return torch.relu(z)

    x = torch.rand(2, 6, 7, 9).double()
    y = CONV(x).detach()
    pushforward(keeping, (x,), (x[None],))
    MEAN.add_(1)
    first, convolved, second = kept
    convolved.mul_(3)
    MEAN.sub_(1)
    torch.testing.assert_close(first * 1.0, NORM(y).detach())
    torch.testing.assert_close(second * 1.0, NORM(y).detach())


def test_a_normalisation_takes_the_memory_of_a_convolution_that_is_gone() -> None:
    places: list[int] = []

    def place(x: Tensor) -> int:
        assert isinstance(x, Dual)
        return x._stack.data_ptr()

    def noting(x: Tensor) -> Tensor:
        y = CONV(x)
        places.append(place(y))
        y = NORM(y)
        y = torch.relu_(y)
        places.append(place(y))
        kept = CONV(y[:, :, :3, :3])
        places.append(place(kept))
        z = torch.relu_(NORM(kept))
        places.append(place(z))
        return z

    x = torch.rand(2, 6, 7, 9).double()
    pushforward(noting, (x,), (x[None],))
    assert places[0] == places[1]
    assert places[2] != places[3]


@pytest.mark.parametrize("function", [copy.copy, from_dlpack, lambda x: x.share_memory_()])
@pytest.mark.parametrize("tensor", [CONV, lambda x: NORM(CONV(x)), torch.sin])
def test_copies_that_share_memory_unseen_are_refused(function: Function, tensor: Function) -> None:
    x = torch.rand(2, 6, 7, 9).double()
    with pytest.raises(NoRule, match="in memory"):
        pushforward(lambda x: function(tensor(x)), (x,), (x[None],))


@pytest.mark.parametrize("activation", [torch.relu, torch.relu_, F.relu6, F.hardtanh_])
def test_infinite_tangents_of_what_is_off_are_none(activation: Function) -> None:
    """Zero times infinity: seen in the result, and evaluated without waiting then."""

    def function(x: Tensor) -> Tensor:
        return activation(NORM(CONV(x.sqrt())))

    x = torch.rand(1, 6, 3, 3).double()
    x[0, 0, 0, 0] = 0
    tangent = torch.ones_like(x)
    ours = pushforward(function, (x,), (tangent[None],))[0]
    with torch.no_grad(), forward_ad.dual_level():
        output = function(forward_ad.make_dual(x, tangent))
        expected = forward_ad.unpack_dual(output).tangent
    assert not bool(expected.isnan().any())
    assert bool((expected == 0).any())
    assert bool(expected.isinf().any())
    torch.testing.assert_close(ours, expected)
