"""Convolutions that wait for a batch normalisation give what they would have given at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_lie import get_group, lie_derivative
from captum_lie.core.tangents import NoRule, pushforward
from captum_lie.core.tangents.waiting import Convolution

Function = Callable[[Tensor], Tensor]


def pieces(*, bias: bool = False, **options: Any) -> tuple[nn.Conv2d, nn.Module]:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(6).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    return nn.Conv2d(6, 6, 3, bias=bias, **options).double(), norm.eval()


def derivatives(function: Function, x: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
    """Ours, and PyTorch's forward mode of the same function with fresh inputs."""
    ours = pushforward(function, (x.clone(),), (tangents.clone(),))
    rows = [torch.func.jvp(function, (x.clone(),), (t.clone(),))[1] for t in tangents]
    return ours, torch.stack(rows)


CONV, NORM = pieces()


def plainly(x: Tensor) -> Tensor:
    return torch.relu_(NORM(CONV(x)))


def used_again(x: Tensor) -> Tensor:
    y = CONV(x)
    return NORM(y) + y.sin()


def overwritten_between(x: Tensor) -> Tensor:
    x = x * 1.0
    y = CONV(x)
    x.mul_(3)
    return NORM(y) + x[:, :, 1:-1, 1:-1]


def overwritten_by_name(x: Tensor) -> Tensor:
    x = x * 1.0
    y = CONV(x)
    torch.ops.aten.mul_(self=x, other=3)
    return NORM(y)


def two_in_a_row(x: Tensor) -> Tensor:
    y, z = CONV(x), CONV(x.sin())
    return NORM(y) * NORM(z)


def scaled_twice(x: Tensor) -> Tensor:
    y = CONV(x)
    return NORM(y) * NORM(y)


def overwritten_itself(x: Tensor) -> Tensor:
    y = CONV(x)
    z = NORM(y)
    y.mul_(2)
    return z + y


def seen_between(x: Tensor) -> Tensor:
    y = CONV(x)
    assert y.shape == (2, 6, 5, 7)
    assert y.stride() == (6 * 35, 35, 7, 1)
    return NORM(y)


@pytest.mark.parametrize(
    "function",
    [
        plainly,
        used_again,
        overwritten_between,
        overwritten_by_name,
        two_in_a_row,
        scaled_twice,
        overwritten_itself,
        seen_between,
    ],
)
def test_results_are_those_of_torch(function: Function) -> None:
    torch.manual_seed(1)
    x, tangents = torch.rand(2, 6, 7, 9).double(), torch.rand(3, 2, 6, 7, 9).double()
    torch.testing.assert_close(*derivatives(function, x, tangents))


@pytest.mark.parametrize(
    "options",
    [
        {"bias": True},
        {"stride": 2, "padding": 1},
        {"dilation": 2, "padding": 3},
        {"groups": 3},
        {"groups": 6, "bias": True, "stride": 3},
    ],
)
def test_any_convolution_can_wait(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """And did: it was computed once, with its weights scaled."""
    conv, norm = pieces(**options)
    calls = []
    compute = Convolution.__call__

    def counted(self: Convolution, *scaling: Tensor) -> Tensor:
        calls.append(len(scaling))
        out = compute(self, *scaling)
        assert list(out.shape[1:]) == self.shape
        return out

    monkeypatch.setattr(Convolution, "__call__", counted)
    x, tangents = torch.rand(2, 6, 8, 9).double(), torch.rand(2, 2, 6, 8, 9).double()
    torch.testing.assert_close(*derivatives(lambda x: norm(conv(x)), x, tangents))
    assert calls == [2]


def test_channels_last_and_half_precision_do_not_wait() -> None:
    x = torch.rand(3, 2, 6, 7, 9)
    conv, _ = pieces()
    options = ([1, 1], [0, 0], [1, 1], False, [0, 0], 1)
    for changed in (x.bfloat16(), x.transpose(3, 4)):
        assert not Convolution(changed, conv.weight.to(changed), None, *options).can_wait
    assert Convolution(x, conv.weight.float(), None, *options).can_wait


@pytest.mark.parametrize("again", [lambda y: y, NORM])
def test_a_lost_input_is_never_a_wrong_number(again: Function) -> None:
    def asked_too_late(x: Tensor) -> Tensor:
        x = x * 1.0
        y = CONV(x)
        z = NORM(y)
        x[:, 1].mul_(2)
        return z + again(y)

    x = torch.rand(2, 6, 7, 9).double()
    with pytest.raises(NoRule, match="overwritten"):
        pushforward(asked_too_late, (x,), (x[None],))
    ours = lie_derivative(asked_too_late, x, "rotation")
    motion = get_group("rotation").generator(x)
    torch.testing.assert_close(ours, torch.func.jvp(asked_too_late, (x,), (motion,))[1])


def test_what_a_model_keeps_is_a_constant_later() -> None:
    kept = []

    def keeping(x: Tensor) -> Tensor:
        y = CONV(x)
        kept.append(y)
        return NORM(y) + (kept[0] if len(kept) > 1 else 0)

    x = torch.rand(2, 6, 7, 9).double()
    first, second = (pushforward(keeping, (x,), (x[None],)) for _ in range(2))
    torch.testing.assert_close(first, second)
    torch.testing.assert_close(kept[0] * 1.0, CONV(x).detach())
