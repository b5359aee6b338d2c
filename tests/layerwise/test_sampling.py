"""Sampling-based errors of single layers: closed forms, and a literal re-derivation."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_lie.examples import load_images, load_model
from captum_lie.layerwise import LayerwiseSampledError
from captum_lie.layerwise.commuting import moved
from captum_lie.layouts import UNKNOWN, Layout
from captum_lie.metrics import SincKernel, bandlimit, fractional_shift, rotate
from captum_lie.metrics.sampling import Sampling
from captum_lie.results.sampled import NORMALISATIONS, SampledResult
from tests.toy_models import untyped


def noise(n: int = 3, height: int = 16, width: int = 24, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, 3, height, width, generator=generator, dtype=torch.float64)


class Residual(nn.Module):
    """A reused in-place activation, a residual branch, a stride, and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.down = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.act(self.conv(x))
        return self.head(self.act(self.down(x)).mean((2, 3)))


def measure(model: nn.Module, x: Tensor, metrics: str = "eq_t", **options: Any) -> SampledResult:
    settings = {"n_samples": 2} | options
    (result,) = LayerwiseSampledError(model).evaluate([x], metrics, **settings)
    return result


def by_name(result: SampledResult, values: Tensor) -> dict[tuple[str, int], Tensor]:
    return {(r.module, r.call): v for r, v in zip(result.rows, values, strict=True)}


def test_a_circular_convolution_commutes_with_circular_shifts() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), nn.GELU(), nn.Flatten(),
        nn.Linear(4 * 16 * 24, 5),
    ).double().eval()  # fmt: skip
    for metric in ("eq_t", "eq_t_frac"):
        result = measure(model, noise(), metric, border="circular")
        error = by_name(result, result.errors("relative_to_output"))
        assert error["0", 0].max() < 1e-25
        assert (error["1", 0].max() < 1e-25) == (metric == "eq_t")  # pointwise, but not linear
        assert error["1", 0].max() < 0.1


@pytest.mark.parametrize("metric", ["eq_t", "eq_t_frac", "eq_r"])
def test_literal_rederivation(metric: str) -> None:
    """Every number again, with a loop that knows the network by heart."""
    model, x = Residual().double().eval(), noise()
    result = measure(model, x, metric, border="reflect", seed=5, n_samples=3)
    draws = Sampling(3, seed=5).uniform(f"layer_{metric}", np.arange(3), 2)
    a = model.conv(x)
    b = F.relu(a)
    c = x + b
    d = model.down(c)
    e = F.relu(d)
    p = e.mean((2, 3))
    y = model.head(p)
    image, trivial = True, False
    calls: dict[tuple[str, int], tuple[Callable[[Tensor], Tensor], Tensor, Tensor, bool]] = {
        ("", 0): (copy.deepcopy(model), x, y, trivial),
        ("conv", 0): (model.conv, x, a, image),
        ("act", 0): (F.relu, a, b, image),
        ("down", 0): (model.down, c, d, image),
        ("act", 1): (F.relu, d, e, image),
        ("head", 0): (model.head, p, y, trivial),
    }
    got = {name: by_name(result, result.errors(name)) for name in NORMALISATIONS}
    assert set(got["sum"]) == set(calls)
    for key, (function, entering, still, moves) in calls.items():
        grids = [t.shape[-2:] for t in (entering, still) if t.ndim == 4]
        coarse = min(grids) if grids else (1, 1)
        error, output, change = torch.zeros(3, 3, dtype=torch.float64)
        for s in range(3):

            def act(t: Tensor, s: int = s, coarse: tuple[int, ...] = coarse) -> Tensor:
                if t.ndim == 2:
                    return t
                u = draws[:, s]
                if metric == "eq_r":
                    return rotate(t, torch.from_numpy(u[:, 0] * np.pi), "reflect")[0]
                if metric == "eq_t_frac":
                    dy, dx = (torch.from_numpy(u[:, i] * t.shape[2 + i] / 8) for i in (0, 1))
                    return fractional_shift(t, dx, dy, "reflect")[0]
                images = []
                for i, one in enumerate(t):
                    index = []
                    for axis in (0, 1):
                        reach = max(1, coarse[axis] // 8)
                        count = int(np.floor((u[i, axis] + 1) * (reach + 0.5))) - reach
                        size = t.shape[2 + axis]
                        shift = count * (size // coarse[axis])
                        mirror = [abs(j) if j < size else 2 * (size - 1) - j
                                  for j in range(shift, size + shift)]  # fmt: skip
                        index.append(mirror)
                    images.append(one[:, index[0]][:, :, index[1]])
                return torch.stack(images)

            response = function(act(entering)).detach()
            if metric == "eq_r" and moves:
                angle = torch.from_numpy(draws[:, s, 0] * np.pi)
                response = bandlimit(response, angle, "reflect")[0]
            wanted = act(still.detach())
            error += (response - wanted).square().flatten(1).sum(1) / 3
            output += wanted.square().flatten(1).sum(1) / 3
            change += (wanted - still.detach()).square().flatten(1).sum(1) / 3
        dim = still[0].numel()
        expected = {
            "sum": error,
            "per_root_dim": error / dim**0.5,
            "mean": error / dim,
            "relative_to_output": error / output,
            "relative_to_change": error / change if moves else torch.full_like(error, torch.nan),
        }
        for name, value in expected.items():
            torch.testing.assert_close(
                got[name][key], value, rtol=1e-9, atol=1e-20, equal_nan=True, msg=f"{key} {name}"
            )


def test_tokens_move_on_their_grid_and_the_prefix_stays() -> None:
    layout = Layout("tokens", prefix=2, grid=(3, 4))
    x = torch.arange(2 * 14 * 5, dtype=torch.float64).reshape(2, 14, 5)

    def roll(image: Tensor) -> tuple[Tensor, Tensor]:
        inside = torch.ones(2, 1, 3, 4, dtype=torch.bool)
        inside[..., 0] = False
        return image.roll(1, -1), inside

    result, inside = moved(layout, x, roll)
    assert torch.equal(result[:, :2], x[:, :2])
    assert torch.equal(result[:, 2:].reshape(2, 3, 4, 5), x[:, 2:].reshape(2, 3, 4, 5).roll(1, 2))
    assert inside[:, :2].all()
    assert not inside[:, 2::4].any()
    assert inside[:, 3::4].all()


def test_a_vits_pointwise_layers_commute_and_its_position_embedding_does_not() -> None:
    model, (images, _) = load_model("vit"), load_images(2)
    result = measure(model, images, border="circular")
    error = by_name(result, result.errors("relative_to_output"))
    assert error["blocks.0.mlp.norm", 0].max() < 1e-10
    assert error["blocks.0.attention", 0].max() < 1e-10  # knows no positions
    assert error["position", 0].min() > 1e-3


def test_strided_layers_commute_with_shifts_of_their_stride_only() -> None:
    model = nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(3 * 8 * 12, 4)).double().eval()
    whole = measure(model, noise(), "eq_t", border="circular")
    assert by_name(whole, whole.errors("sum"))["0", 0].max() < 1e-25
    part = measure(model, noise(), "eq_t_frac", border="circular")
    assert by_name(part, part.errors("sum"))["0", 0].min() > 1e-3


def test_small_fractional_errors_tend_to_the_square_of_the_shift() -> None:
    """Half the reach, a quarter of the error: the first-order picture that LEE is the limit of."""
    model = nn.Sequential(nn.GELU(), nn.Flatten(), nn.Linear(3 * 16 * 24, 4)).double().eval()
    x = F.interpolate(noise(height=4, width=6), (16, 24), mode="bicubic")
    kernel = SincKernel(8, "kaiser")
    error = [
        measure(model, x, "eq_t_frac", border="circular", max_shift=s, kernel=kernel)
        .errors("sum")[1]
        .sum()
        for s in (0.004, 0.002)
    ]
    assert error[0] / error[1] == pytest.approx(4, rel=0.05)


def test_results_do_not_depend_on_batches() -> None:
    model, x = Residual().double().eval(), noise(5)
    method = LayerwiseSampledError(model)
    whole = method.evaluate([x], n_samples=2)
    split = method.evaluate([(x[:2], None), (x[2:], None)], n_samples=2)
    for a, b in zip(whole, split, strict=True):
        torch.testing.assert_close(a.squared_error, b.squared_error, rtol=1e-9, atol=1e-25)
        other = method.evaluate([x], a.metric, n_samples=2, seed=1)[0]
        assert not torch.allclose(other.squared_error[0], a.squared_error[0])


def test_what_is_not_known_is_nan() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.ReLU())
            self.crop = nn.AvgPool2d(5)

        def forward(self, x: Tensor) -> Tensor:
            return self.crop(self.inner(x)).mean((2, 3))

    method = LayerwiseSampledError(Odd().eval(), layouts={"inner": UNKNOWN})
    (result,) = method.evaluate([noise(2, 21, 21)], "eq_t")
    error = by_name(result, result.errors())
    assert error["inner", 0].isnan().all()
    assert error["crop", 0].isnan().all()  # 4 does not divide 21
    assert error["", 0].isfinite().all()
    assert result.to_dataframe().set_index("module").loc["inner", "output_layout"] == "unknown"


def test_masks_count_what_depends_on_no_border() -> None:
    model = nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(3 * 16 * 24, 4)).double().eval()
    full, masked = (measure(model, noise(), "eq_r", masked=m) for m in (False, True))
    assert (full.dims[1] == 3 * 16 * 24).all()
    assert (masked.dims[1] == 0).all()  # the kernel always reaches the border of so small a grid
    assert masked.errors()[1].isnan().all()
    shifted = measure(model, noise(), "eq_t", masked=True)
    assert (shifted.dims[1] < 3 * 16 * 24).any()


def test_the_model_is_left_as_it_was() -> None:
    model, x = Residual().double().eval(), noise()
    before = model(x)
    with pytest.raises(RuntimeError):
        measure(model, noise()[:, :2])
    measure(model, x)
    assert torch.equal(model(x), before)
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_bad_input_is_explained() -> None:
    method = LayerwiseSampledError(Residual().eval())
    with pytest.raises(ValueError, match="metric"):
        method.evaluate([noise().float()], "eq_x")
    with pytest.raises(ValueError, match="border"):
        method.evaluate([noise().float()], border=untyped("sphere"))
    with pytest.raises(ValueError, match="no images"):
        method.evaluate([])
    with pytest.raises(ValueError, match="n_samples"):
        method.evaluate([noise().float()], n_samples=0)
    with pytest.raises(TypeError, match=r"torch\.nn\.Module"):
        LayerwiseSampledError(untyped(lambda x: x))
    with pytest.raises(ValueError, match="training"):
        LayerwiseSampledError(nn.Sequential(nn.BatchNorm2d(3))).evaluate([noise().float()])


def test_the_picture_shows_leaves() -> None:
    figure = measure(Residual().double().eval(), noise()).plot("relative_to_output")
    assert figure.axes[0].get_ylabel() == "relative to output"
    assert len(figure.axes[0].patches) == 5


def test_examples_without_a_value_are_left_out_of_the_mean() -> None:
    result = measure(Residual().double().eval(), noise(4, 32, 32))
    undefined = torch.zeros_like(result.squared_change)
    undefined[:, 1] = 1
    change = result.squared_change.masked_fill(undefined.bool(), 0)
    table = dataclasses.replace(result, squared_change=change).to_dataframe()
    kept = result.errors("relative_to_change")[:, [0, 2, 3]]
    expected = kept.mean(1).numpy()
    assert np.isfinite(expected).sum() >= 3
    np.testing.assert_allclose(table["relative_to_change"], expected)
    np.testing.assert_allclose(
        table["relative_to_change_stderr"], (kept.std(1) / 3**0.5).numpy(), atol=1e-12
    )
