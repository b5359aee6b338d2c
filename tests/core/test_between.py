"""What is done between a convolution and the normalisation behind it counts, seen or unseen.

Whoever folds one into the other, or lets the convolution wait, is held to this: weights may change
in between, its input be written to through an alias without tangents, its result be kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from captum_lie.core.tangents import pushforward

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


@pytest.mark.parametrize(
    "function",
    [plainly, used_again, input_overwritten, input_overwritten_by_name,
     input_overwritten_through_an_alias, result_overwritten, weight_swapped, weight_replaced,
     one_buffer_for_two, a_choice_by_layout, another_convolution_after_an_error],
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
