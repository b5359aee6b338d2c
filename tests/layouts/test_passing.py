"""Modules that pass their input on contribute nothing, and only those are taken for such."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from captum_lie.layerwise import LayerwiseEquivarianceError
from captum_lie.layouts import passes_on, passing, register_passing


class Skipping(nn.Module):
    """Dropout of one's own."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (torch.rand_like(x) < 0.5) if self.training else x


class Renamed(Skipping):
    pass


class Doubling(nn.Identity):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * input


@pytest.fixture
def registry() -> Iterator[None]:
    """Classes that a test registers are forgotten."""
    before = set(passing._PASSING)
    yield
    passing._PASSING.clear()
    passing._PASSING.update(before)


def test_those_of_pytorch_return_their_input() -> None:
    x = torch.rand(2, 3, 4, 4)
    assert len(passing._PASSING) >= 7
    for cls in (nn.Identity, nn.Dropout, nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout):
        module = cls().eval()
        assert passes_on(module)
        assert torch.equal(module(x), x)
    assert not passes_on(nn.ReLU())
    assert not passes_on(nn.Sequential())


@pytest.mark.usefixtures("registry")
def test_subclasses_with_code_of_their_own_are_others() -> None:
    assert not passes_on(Doubling())
    assert not passes_on(Renamed())
    register_passing(Skipping)
    assert passes_on(Skipping())
    assert passes_on(Renamed())
    register_passing(Doubling)  # a lie, but a stated one
    assert passes_on(Doubling())


class Rows(nn.Module):
    """Columns take the place of examples around the module within."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        moved = x.permute(3, 0, 1, 2)
        return self.inner(moved.reshape(-1, *moved.shape[2:])).view(moved.shape).permute(1, 2, 3, 0)


@pytest.mark.usefixtures("registry")
def test_what_passes_is_resolved_though_its_layout_is_unknown() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), Rows(Skipping()), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    model = nn.Sequential(model, nn.Flatten()).double().eval()
    x = torch.rand(2, 3, 8, 12, dtype=torch.float64)
    method = LayerwiseEquivarianceError(model)
    before = method.attribute(x)
    register_passing(Skipping)
    after = method.attribute(x)
    i = [row.module for row in after.rows].index("0.1.inner")
    assert not before.rows[i].resolved
    assert after.rows[i].resolved
    assert not after.contributions[i].any()
    torch.testing.assert_close(after.total, before.total)
