"""Chunks chosen by themselves: sizes, memory that runs out, and results that do not notice."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from captum_lie import (
    LayerwiseEquivarianceError,
    LieDerivative,
    LocalEquivarianceError,
    lie_derivative,
)
from captum_lie.core import chunks
from captum_lie.core.chunks import Chunk, in_chunks, largest_activation
from tests.toy_models import build, images


def sizes(
    model: Callable[..., object],
    n: int,
    n_tangents: int = 1,
    internal_batch_size: int | None = None,
) -> list[tuple[int, int | None]]:
    """How many examples and tangents each chunk of n images has."""
    x = torch.rand(n, 3, 4, 4)

    def work(chunk: Chunk) -> tuple[int, int | None]:
        return len(chunk.inputs[0]), chunk.tangents

    return list(
        in_chunks(work, model, (x,), n_tangents=n_tangents, internal_batch_size=internal_batch_size)
    )


def test_the_largest_activation_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Conv2d(3, 8, 1)  # its output, 8 · 4 · 4 floats, is the largest tensor: 512 bytes
    monkeypatch.setattr(chunks, "CPU_BYTES", 512 * 8)
    assert sizes(model, 8) == [(4, None), (4, None)]
    assert sizes(model, 5, n_tangents=3) == [(2, None), (2, None), (1, None)]
    assert sizes(model, 2, n_tangents=7) == [(1, None)] * 2
    monkeypatch.setattr(chunks, "CPU_BYTES", 512 * 1)
    assert sizes(model, 2, n_tangents=3) == [(1, None)] * 2  # four rows together
    assert sizes(model, 2, n_tangents=7) == [(1, 4)] * 2  # seven tangents in two even parts


def test_the_size_asked_for_wins() -> None:
    model = nn.Conv2d(3, 8, 1)
    assert sizes(model, 5, internal_batch_size=2) == [(2, None), (2, None), (1, None)]
    assert sizes(model, 2, n_tangents=7, internal_batch_size=3) == [(1, 3)] * 2
    assert sizes(model, 5) == [(5, None)]


def test_views_and_weights_are_no_activations() -> None:
    linear = nn.Linear(48, 1000)  # 192 kB of weights, transposed on use
    one = torch.rand(1, 3, 4, 4)
    assert largest_activation(lambda x: linear(x.flatten(1)), (one,)) == 4000
    expanded = largest_activation(lambda x: x.expand(100, 3, 4, 4), (one,))
    assert expanded == 0


def test_attention_maps_count() -> None:
    attention = nn.MultiheadAttention(8, 1, batch_first=True).eval()
    tokens = torch.rand(1, 64, 8)
    largest = largest_activation(lambda x: attention(x, x, x, need_weights=False)[0], (tokens,))
    assert largest == 64 * 64 * 4


def test_a_model_is_looked_at_once() -> None:
    calls = []
    model = nn.Conv2d(3, 8, 1)
    model.register_forward_hook(lambda *_: calls.append(1))
    sizes(model, 4)
    assert len(calls) == 1
    sizes(model, 4)
    assert len(calls) == 1
    list(in_chunks(lambda c: None, model, (torch.rand(4, 3, 6, 6),)))
    assert len(calls) == 2  # another size


def test_a_model_that_takes_no_single_image_runs_whole() -> None:
    def pairs(x: Tensor) -> Tensor:
        if len(x) % 2:
            raise ValueError("pairs only")
        return x.mean((2, 3))

    assert sizes(pairs, 4) == [(4, None)]


class Greedy(nn.Module):
    """Runs out of memory beyond a number of rows."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.inner = build("resnet")
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        if len(x) > self.most:
            raise torch.OutOfMemoryError("Tried to allocate 1 TiB")
        output: Tensor = self.inner(x)
        return output


def test_halved_where_memory_runs_out() -> None:
    model, x = Greedy(2).eval(), images(5)
    expected = LocalEquivarianceError(model.inner).score(x)
    torch.testing.assert_close(LocalEquivarianceError(model).score(x), expected)
    assert max(model.seen) == 5  # it was tried
    gradients = LieDerivative(model).attribute(x, target=1)
    torch.testing.assert_close(gradients, LieDerivative(model.inner).attribute(x, target=1))


def test_tangents_are_halved_too(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def work(chunk: Chunk) -> int:
        tried.append((len(chunk.inputs[0]), chunk.tangents))
        if len(chunk.inputs[0]) > 1 or (chunk.tangents or 7) > 2:
            raise torch.OutOfMemoryError("Tried to allocate 1 TiB")
        return len(chunk.inputs[0])

    model, x = nn.Conv2d(3, 8, 1), torch.rand(2, 3, 4, 4)
    assert list(in_chunks(work, model, (x,), n_tangents=7)) == [1, 1]
    assert tried == [(2, None), (1, None), (1, 3), (1, 1), (1, 1)]


def test_what_never_fits_is_an_error() -> None:
    model, x = Greedy(0).eval(), images(2)
    with pytest.raises(torch.OutOfMemoryError):
        LocalEquivarianceError(model).score(x)
    with pytest.raises(torch.OutOfMemoryError):  # an explicit size is not changed
        LocalEquivarianceError(Greedy(1).eval()).score(x, internal_batch_size=100)


@pytest.mark.parametrize("budget", [1, 3000, 20000])
def test_results_do_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch, budget: int) -> None:
    model, x = build("resnet"), images(3)
    method = LocalEquivarianceError(model)
    layers = LayerwiseEquivarianceError(model)

    def everything() -> list[Tensor]:
        found = method.collect([x], "all", gram=True)
        assert found.control is not None
        assert found.gram is not None
        return [
            method.score(x), found.lee, found.control, found.gram, method.gram(x),
            method.attribute(x, group="rotation"),
            method.attribute(x, group="rotation", internal_batch_size=3),
            LieDerivative(model).attribute(x, target=torch.tensor([0, 1, 2])),
            *(r.total for r in layers.attribute(x, ["rotation", "scale"], "target", target=1)),
            *(r.contributions for r in layers.attribute(x, ["rotation", "scale"])),
            lie_derivative(model, x, ["scale", "shear_x"]),
        ]  # fmt: skip

    whole = everything()
    monkeypatch.setattr(chunks, "CPU_BYTES", budget)
    assert len(sizes(nn.Conv2d(3, 64, 1), 20)) > 1
    for mine, expected in zip(everything(), whole, strict=True):
        torch.testing.assert_close(mine, expected)
