"""The tangent engine on whole functions: numbers, what it refuses, what it leaves behind."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

from captum_lie import lie_derivative
from captum_lie.core import autodiff
from captum_lie.core.autodiff import differentiable
from captum_lie.core.tangents import NoRule, fallbacks, pushforward
from captum_lie.core.tangents.dual import Dual
from captum_lie.examples import MODEL_NAMES, load_model
from tests.toy_models import Applied, ReverseOnly, WrongBackward, build, images


def random_tangents(x: Tensor, count: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(count, *x.shape, generator=generator, dtype=torch.float64).to(x.dtype)


def by_torch(function: Callable[..., Any], *pairs: tuple[Tensor, Tensor]) -> Tensor:
    inputs = tuple(x for x, _ in pairs)
    with differentiable():
        rows = [
            torch.func.jvp(function, inputs, t)[1] for t in zip(*(t for _, t in pairs), strict=True)
        ]
    return torch.stack(rows).detach()


def check(function: Callable[..., Any], x: Tensor, chunk_size: int | None = None) -> None:
    t = random_tangents(x)
    with differentiable():
        found = pushforward(function, (x,), (t,), chunk_size)
    assert type(found) is Tensor
    assert not found.requires_grad
    torch.testing.assert_close(found, by_torch(function, (x, t)), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("chunk_size", [None, 1, 2])
@pytest.mark.parametrize("name", ["resnet", "resnet_smooth", "vit", "mixer", "dense"])
def test_models(name: str, batch: int, chunk_size: int | None) -> None:
    """Non-square images, in-place activations, modules used again, nn's own encoder layer."""
    model, x = build(name), images(batch)
    check(model, x, chunk_size)
    with differentiable():
        assert not fallbacks(model, (x,))


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_embedded_models(name: str) -> None:
    model = load_model(name).double()
    x = images(2, (32, 32))
    check(model, x)
    with differentiable():
        assert not fallbacks(model, (x,))


def test_tuples_of_inputs() -> None:
    x, y = images(2), images(2, (4, 5), seed=4)
    s, t = random_tangents(x), random_tangents(y)
    model = build("resnet")

    def function(x: Tensor, y: Tensor) -> Tensor:
        return model(x) * y.sum((1, 2, 3))[:, None] + y.amax((2, 3)).mean(1, keepdim=True)

    found = pushforward(function, (x, y), (s, t))
    torch.testing.assert_close(found, by_torch(function, (x, s), (y, t)), rtol=1e-9, atol=1e-12)


class Cached(nn.Module):
    """Keeps a tensor that it made at its first call, as position embeddings often are."""

    def __init__(self) -> None:
        super().__init__()
        self.grid: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.grid is None:
            self.grid = torch.ones_like(x).cumsum(-1)
        return x * self.grid


def test_what_a_model_keeps_is_a_constant_afterwards() -> None:
    model, x = Cached(), images()
    check(model, x)
    check(model, x)
    y = x.clone().requires_grad_()
    model(y).sum().backward()
    torch.testing.assert_close(y.grad, torch.arange(1.0, 13.0).double().expand_as(x))


def _buffer(x: Tensor) -> Tensor:
    buffer = torch.zeros_like(x)
    buffer[:, :, 1:] = x[:, :, :-1]
    return buffer * x


@torch.no_grad()
def _without_grad(x: Tensor) -> Tensor:
    return x.sin()


RIGHT: dict[str, Callable[[Tensor], Any]] = {
    "the input itself": lambda x: x,
    "a view of the input": lambda x: x[:, 0].T,
    "an expanded view": lambda x: x[:, :1].expand(-1, 4, -1, -1),
    "a constant": lambda x: torch.ones(len(x), 3, dtype=x.dtype),
    "a step": lambda x: (x > 0.5).to(x.dtype),
    "integers on the way": lambda x: F.one_hot((x * 3).long(), 4)[..., 0] * x,
    "embedding": lambda x: F.embedding((x * 3).long(), torch.ones(4, 2).double()) * x[..., None],
    "a branch": lambda x: x * 2 if x.sum() > 0 else x,
    "an index that is computed": lambda x: x[:, :, x.mean((0, 1, 3)).argmax()],
    "detached": lambda x: x.detach() * x,
    "data": lambda x: x.data * x,
    "straight through": lambda x: x + (x.round() - x).detach(),
    "a buffer": _buffer,
    "in place on the input": lambda x: x.sub_(0.5).mul_(2),
    "dropout": lambda x: F.dropout(x, 0.3, training=False),
    "reentrant checkpoint": lambda x: checkpoint(torch.sin, x, use_reentrant=True),
    "without grad": _without_grad,
    "vmap in the model": lambda x: torch.func.vmap(lambda y: y.sin().sum())(x),
    "grad in the model": lambda x: torch.func.grad(lambda y: (y.sin() ** 2).sum())(x),
    "a batch that moves": lambda x: torch.einsum("nchw,mchw->nm", x, x.sin()).softmax(1),
    "several of one": lambda x: torch.stack([y.square() for y in x.unbind()]),
    "no rule": lambda x: x.logcumsumexp(-1),
    "autocast": lambda x: F.linear(x, torch.ones(3, 12, dtype=x.dtype)),
}


@pytest.mark.parametrize("name", RIGHT)
def test_functions(name: str) -> None:
    check(lambda x: RIGHT[name](x.view_as(x) if name != "the input itself" else x), images())


def test_checkpoints() -> None:
    """Against the closed form: torch.func.jvp refuses them (torch 2.6 to 2.8)."""
    x = images()
    t = random_tangents(x)
    found = pushforward(lambda x: checkpoint(torch.sin, x, use_reentrant=False), (x,), (t,))
    torch.testing.assert_close(found, x.cos() * t)


def test_a_tensor_times_itself_in_place() -> None:
    """Against the closed form: torch.func.jvp gives something else (torch 2.14)."""
    x = images()
    t = random_tangents(x)

    def function(x: Tensor) -> Tensor:
        y = x + 0
        return y.mul_(y)

    torch.testing.assert_close(pushforward(function, (x,), (t,)), 2 * x * t)


def _by_the_engine(x: Tensor) -> Tensor:
    return pushforward(torch.sin, (x,), (torch.ones_like(x)[None],))[0]


def _by_lie_derivative(x: Tensor) -> Tensor:
    return lie_derivative(torch.sin, x, "brightness") / x


def _by_forward_mode(x: Tensor) -> Tensor:
    with forward_ad.dual_level():
        moved = torch.sin(forward_ad.make_dual(x, torch.ones_like(x)))
        tangent = forward_ad.unpack_dual(moved).tangent
    return torch.zeros_like(x) if tangent is None else tangent


def _by_a_transform(x: Tensor) -> Tensor:
    derivative: Tensor = torch.func.jvp(torch.sin, (x,), (torch.ones_like(x),))[1]
    return derivative


@pytest.mark.parametrize(
    "derivative", [_by_the_engine, _by_lie_derivative, _by_forward_mode, _by_a_transform]
)
def test_functions_that_differentiate_something_themselves(
    derivative: Callable[[Tensor], Tensor],
) -> None:
    x, inner = images(), images(seed=3)
    t = random_tangents(x)
    function = lambda x: x.exp() * derivative(inner)  # noqa: E731
    expected = t * x.exp() * inner.cos()
    torch.testing.assert_close(autodiff.pushforward(function, (x,), (t,)), expected)
    with suppress(NoRule) if derivative is _by_forward_mode else nullcontext():
        torch.testing.assert_close(pushforward(function, (x,), (t,)), expected)


def test_scripted_functions() -> None:
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
    traced: Any = torch.jit.trace(body.double().eval(), images())
    for _ in range(3):  # the profiling executor changes its mind after some calls
        check(traced, images())


def _overwritten(x: Tensor) -> Tensor:
    buffer = torch.zeros(x.shape, dtype=x.dtype)
    buffer[:, :2] = x[:, :2]
    return buffer


def _added(x: Tensor) -> Tensor:
    buffer = torch.zeros(x.shape, dtype=x.dtype)
    buffer += x
    return buffer


def _enabled(x: Tensor) -> Tensor:
    with torch.enable_grad():
        y = x.detach().requires_grad_()
        return torch.autograd.grad((y * x).sum(), y)[0]


REFUSED: dict[str, Callable[[Tensor], Any]] = {
    "a constant buffer is overwritten": _overwritten,
    "a constant buffer is added to": _added,
    "a number is read": lambda x: x / x.max().item(),
    "numbers are read": lambda x: x * torch.tensor(x[0, 0, 0].tolist()).double(),
    "an array is read": lambda x: x * torch.from_numpy(x.numpy()),
    "bits are read": lambda x: x.view(torch.int64).double() * x,
    "shapes change in place": lambda x: (x * 1).unsqueeze_(0),
    "out": lambda x: torch.sin(x, out=torch.empty_like(x)),
    "strides are set": lambda x: x.as_strided((2, 3), (1, 1)),
    "its own derivative": Applied(ReverseOnly),
    "its own derivative, forward": Applied(WrongBackward),
    "its own derivative, by name": lambda x: Applied(ReverseOnly)(x=x),
    "no forward mode": lambda x: torch.cdist(x, x + 1),
    "autograd in the model": _enabled,
    "integers": lambda x: (x * 3).long(),
    "a list": lambda x: [x],
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_it_cannot_do_is_refused(name: str) -> None:
    x = images()
    with differentiable(), pytest.raises(RuntimeError):
        pushforward(REFUSED[name], (x,), (random_tangents(x),))


@pytest.mark.parametrize(
    "name", ["a constant buffer is overwritten", "a number is read", "its own derivative, forward"]
)
def test_what_is_refused_is_done_in_another_way(name: str) -> None:
    """Right or an error, with as many tangents as with one."""
    x = images()
    several = lie_derivative(REFUSED[name], x, ["rotation", "scale"])
    one = lie_derivative(REFUSED[name], x, "rotation")
    torch.testing.assert_close(several[0], one)


def test_two_evaluations_do_not_mix() -> None:
    """The inner derivative of a function of the outer one's tensors is none of ours."""
    x = images()

    def outer(y: Tensor) -> Tensor:
        return pushforward(lambda z: z * y, (x,), (x[None],))[0]

    with pytest.raises(NoRule, match="two evaluations"):
        pushforward(outer, (x,), (random_tangents(x),))


def test_custom_functions_are_as_before() -> None:
    original = torch.autograd.Function.__dict__["apply"]
    x = images()
    with pytest.raises(NoRule, match="ReverseOnly"):
        pushforward(Applied(ReverseOnly), (x,), (x[None],))
    assert torch.autograd.Function.__dict__["apply"] is original

    class OnConstants(nn.Module):
        def forward(self, y: Tensor) -> Tensor:
            assert torch.autograd.Function.__dict__["apply"] is not original
            return y * ReverseOnly.apply(x)  # no tangent goes through it

    torch.testing.assert_close(pushforward(OnConstants(), (x,), (x[None],))[0], x**3)


def test_threads_do_not_disturb_one_another() -> None:
    model, x = build("vit"), images()
    t = random_tangents(x)
    with differentiable():
        expected = pushforward(model, (x,), (t,))
        results: list[Tensor] = []

        def work() -> None:
            for _ in range(5):
                results.append(pushforward(model, (x,), (t,)))

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(results) == 15
    for result in results:
        torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-14)


def test_duals_look_like_their_tensor() -> None:
    x = images()
    seen: list[Tensor] = []

    def function(x: Tensor) -> Tensor:
        y = x.permute(0, 2, 3, 1)
        seen.append(y)
        assert isinstance(y, Dual)
        assert y.shape == (2, 8, 12, 3)
        assert y.stride() == (288, 12, 1, 96)
        assert y.dtype == torch.float64
        assert not y.is_contiguous()
        assert repr(y).startswith("Dual(tensor(")
        return y

    pushforward(function, (x,), (random_tangents(x),))
    assert torch.equal(seen[0] + 0, x.permute(0, 2, 3, 1))


def test_fallbacks_are_counted() -> None:
    found = fallbacks(lambda x: x.logcumsumexp(-1).relu().logcumsumexp(1), (images(),))
    assert found == {"aten.logcumsumexp.default": 2}
