"""Backward passes through what carried tangents: right, and with nothing of the tangents kept."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_lie.core.autodiff import differentiable
from captum_lie.core.tangents import Dual, carried, derivatives_of, hand_on, snapshot
from captum_lie.groups import Rotation
from captum_lie.layerwise.fluxes import recorded
from tests.toy_models import build, images

Function = Callable[[Tensor], Tensor]


@pytest.fixture
def dual() -> Iterator[Tensor]:
    x = torch.rand(2, 3, 4).double()
    with carried((x,), (torch.rand(1, 2, 3, 4).double(),)) as (leaf,):
        yield leaf * 1.0


def value(x: Tensor) -> Tensor:
    assert isinstance(x, Dual)
    return x.stack[0].clone()


def address(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


def test_a_snapshot_is_the_tensor_as_it_was(dual: Tensor) -> None:
    first, then = value(dual), snapshot(dual)
    assert type(then) is Tensor
    assert snapshot(dual) is then
    dual.mul_(2)
    assert torch.equal(then, first)
    assert torch.equal(snapshot(dual), 2 * first)
    plain = torch.rand(2)
    assert snapshot(plain) is plain


@pytest.mark.parametrize(
    "view",
    [lambda x: x[1:], lambda x: x.mT, lambda x: x[..., ::2], lambda x: x.flatten(1)[:, 3:],
     lambda x: x[:, None].expand(-1, 5, -1, -1), lambda x: x.unbind(1)[2]],
)  # fmt: skip
def test_snapshots_of_views_share_their_memory(view: Function, dual: Tensor) -> None:
    part = view(dual)
    assert torch.equal(snapshot(part), value(part))
    assert address(snapshot(part)) == address(snapshot(dual))
    before = snapshot(part).clone(), snapshot(part)
    dual.add_(1)
    assert torch.equal(snapshot(part), before[0] + 1)
    assert torch.equal(before[1], before[0])


def test_what_is_no_view_in_memory_has_a_snapshot_of_its_own(dual: Tensor) -> None:
    spread = dual.expand(3, 2, 3, 4)[:, :, :, 1:]
    turned = spread.mT.reshape(-1)
    for x in (spread, turned):
        assert torch.equal(snapshot(x), value(x))


def test_where_a_view_is_not_laid_out_as_its_base_is(dual: Tensor) -> None:
    assert isinstance(dual, Dual)
    sparse = Dual(torch.rand(2, 3, 8).double()[..., ::2], dual.run).requires_grad_()
    elsewhere = sparse[1:]
    assert torch.equal(snapshot(elsewhere), value(elsewhere))
    moved = dual[1:]
    assert isinstance(moved, Dual)
    moved._stack = torch.rand_like(moved.stack)
    assert torch.equal(snapshot(moved), value(moved))


def test_a_clone_has_the_snapshot_of_what_it_was_made_from(dual: Tensor) -> None:
    clone = dual.clone()
    hand_on(dual, clone)
    assert snapshot(clone) is snapshot(dual)
    clone.mul_(3)
    assert torch.equal(snapshot(clone), 3 * value(dual))


def _overwritten_after_use(x: Tensor) -> Tensor:
    y = x * 2
    z = y.sin() * x
    return z.relu_().flatten(1)[:, 2:] * y.cumsum(1).flatten(1)[:, :-2]


def _views_written_to(x: Tensor) -> Tensor:
    y = x.exp()
    y = torch.cat([y, y * x], 1)
    y[:, 1].mul_(3)
    y.mT[0, :2] = x.sum()
    return y * y.mT.contiguous().mT


def _attention(x: Tensor) -> Tensor:
    q, k, v = torch.cat([x, x.sin(), x.cos()], -1).chunk(3, -1)
    return F.scaled_dot_product_attention(q, k, v).softmax(-1) @ x.mT


def _activations(x: Tensor) -> Tensor:
    y = F.layer_norm(x, (4,))
    return F.gelu(y) * F.silu(y.clone(), inplace=True) + y.tanh().sigmoid() * F.hardtanh_(y * 1)


@pytest.mark.parametrize(
    "function", [_overwritten_after_use, _views_written_to, _attention, _activations]
)
def test_gradients_are_those_without_tangents(function: Function) -> None:
    x, t = torch.rand(2, 3, 4).double() - 0.3, torch.rand(1, 2, 3, 4).double()
    leaf = x.clone().requires_grad_()
    expected = function(leaf)
    cotangent = torch.rand_like(expected)
    with differentiable(), carried((x,), (t,)) as (moving,):
        output = function(moving)
    (ours,) = torch.autograd.grad(output, moving, cotangent)
    torch.testing.assert_close(ours, torch.autograd.grad(expected, leaf, cotangent)[0])


def _written_to_as_data(x: Tensor) -> Tensor:
    z = x * 2
    r = z.sin()
    z.data.mul_(0.5)
    return r * 0 + z.view(-1).cos().view_as(z)


def _written_to_through_a_constant(x: Tensor) -> Tensor:
    z = x * 2
    v = z.view(-1)
    r = v.sin()
    z.detach().mul_(3)
    return r * 0 + v.cos()


@pytest.mark.parametrize("function", [_written_to_as_data, _written_to_through_a_constant])
def test_gradients_are_taken_at_what_there_was(function: Function) -> None:
    """Where a tensor is written to unseen: its gradient is what its derivative is."""
    x, t = torch.rand(2, 3, 4).double(), torch.rand(1, 2, 3, 4).double()
    with differentiable(), carried((x,), (t,)) as (moving,):
        output = function(moving)
        derivative = derivatives_of(output)[0]
    cotangent = torch.rand_like(derivative)
    (ours,) = torch.autograd.grad(output, moving, cotangent)
    torch.testing.assert_close((ours * t[0]).sum(), (derivative * cotangent).sum())


@pytest.mark.parametrize("write", [lambda c: c.mul_(2), lambda c: c.detach().zero_()])
def test_constants_that_were_overwritten_are_noticed(write: Function) -> None:
    x = torch.rand(2, 3, 4).double()
    constant = torch.full_like(x, 3.0)
    with carried((x,), (x[None],)) as (moving,):
        output = moving * constant
        write(constant)
    with pytest.raises(RuntimeError, match="modified by an in-place operation"):
        torch.autograd.grad(output.sum(), moving)


@pytest.mark.parametrize("name", ["resnet", "resnet_smooth", "vit", "mixer"])
def test_no_tangents_outlive_their_use(name: str) -> None:
    """At the end of a recorded evaluation the input and the output alone still carry some."""
    model, x = build(name), images()
    tangent = Rotation().generator(x)[None]
    before = {id(y) for y in _duals()}
    with recorded(model, (x,), output_fn=None, tangents=(tangent,)) as recording:
        shapes = {tuple(y.shape) for y in _duals() if id(y) not in before}
        assert shapes == {tuple(recording.output.shape), tuple(x.shape)}


def _duals() -> list[Dual]:
    return [y for y in gc.get_objects() if issubclass(type(y), Dual)]


def test_calls_keep_no_arguments_that_move() -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU()).double().eval()
    with recorded(model, (images(),), output_fn=None) as recording:
        assert all(call.arguments.values == [None] for call in recording.calls)


def test_boundaries_with_nothing_in_between_share_one_snapshot() -> None:
    model, x = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(inplace=True)).double().eval(), images()
    tangent = Rotation().generator(x)[None]
    with recorded(model, (x,), output_fn=None, tangents=(tangent,)) as recording:
        whole, conv, relu = recording.calls
        assert address(conv.outputs[0].value) == address(relu.inputs[0].value)
        assert address(relu.outputs[0].value) == address(whole.outputs[0].value)
        assert address(relu.outputs[0].value) != address(relu.inputs[0].value)
