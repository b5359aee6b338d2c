"""The same transformations and the same numbers for every backend, batch size and source."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from captum_lie.layouts import NCHW
from captum_lie.metrics import (
    METRIC_NAMES,
    MetricResult,
    MetricTable,
    consistency,
    eq_t,
    eq_t_frac,
    measure,
    paired_difference,
)

METRICS = ",".join(METRIC_NAMES)
N = 70  # more than the largest batch, and no multiple of any


def torch_model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 12, 16), nn.Tanh(), nn.Linear(16, 4))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)  # far from uniform scores
    return model.double().eval()


def numpy_model(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """The same model with NumPy inside; refuses anything that a session would refuse."""
    w1, b1, w2, b2 = (p.detach().numpy() for p in model.parameters())

    def run(x: Tensor) -> Tensor:
        assert not x.requires_grad
        flat = x.numpy().reshape(len(x), -1)
        return torch.from_numpy(np.tanh(flat @ w1.T + b1) @ w2.T + b2)

    return run


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(N, 3, 12, 12, generator=torch.manual_seed(3), dtype=torch.float64)


@pytest.fixture(scope="module")
def reference(images: Tensor) -> MetricTable:
    return run(torch_model(), images, 7)


def run(
    model: Callable[[Tensor], Tensor], images: Tensor | DataLoader[Any], batch_size: int
) -> MetricTable:
    return measure(
        model,
        images,
        METRICS,
        groups=["rotation", "translation_x", "brightness"],
        n_samples=3,
        seed=5,
        batch_size=batch_size,
        options={"consistency": {"max_shift_pixels": 4}},
    )


def assert_same(first: MetricTable, second: MetricTable) -> None:
    assert len(first) == len(second) > 10
    for a, b in zip(first, second, strict=True):
        assert (a.metric, a.variant, a.border, a.n) == (b.metric, b.variant, b.border, b.n)
        assert np.array_equal(a.index, b.index)
        assert a.transformations.keys() == b.transformations.keys()
        for name, values in a.transformations.items():
            assert np.array_equal(values, b.transformations[name])
        assert np.abs(a.per_example - b.per_example).max() < 1e-6
        assert np.allclose(a.per_example, b.per_example, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
@pytest.mark.parametrize("backend", ["torch", "numpy"])
def test_backends_and_batch_sizes_agree(
    backend: str, batch_size: int, images: Tensor, reference: MetricTable
) -> None:
    model = torch_model()
    assert_same(
        run(model if backend == "torch" else numpy_model(model), images, batch_size), reference
    )


@pytest.mark.parametrize("loader_batch", [1, 9, 100])
def test_loaders_agree_with_tensors(
    loader_batch: int, images: Tensor, reference: MetricTable
) -> None:
    loader = DataLoader(TensorDataset(images), batch_size=loader_batch)
    assert_same(run(torch_model(), loader, 16), reference)


def test_transformations_belong_to_the_position_in_the_data(images: Tensor) -> None:
    """A longer data set, or another image in its place, leaves the draws as they were."""
    short = eq_t(torch_model(), images[:3]).transformations
    long = eq_t(torch_model(), images.flip(0)).transformations
    for name in ("dx_px", "dy_px"):
        assert np.array_equal(short[name], long[name][:3])
        assert not np.array_equal(long[name][0], long[name][1])
    apart = eq_t_frac(torch_model(), images[:3]).transformations["dx_px"] / 1.5
    assert np.abs(apart - long["dx_px"][:3]).max() > 0.7  # each metric has its own
    other = eq_t(torch_model(), images[:3], seed=1).transformations
    assert not np.array_equal(short["dx_px"], other["dx_px"])


def test_paired_difference_of_backends(images: Tensor) -> None:
    model = torch_model()

    def quantised(x: Tensor) -> Tensor:
        return (model(x) * 16).round() / 16

    a, b = (eq_t(f, images, border="reflect") for f in (quantised, model))
    difference = paired_difference(a, b)
    assert difference.value == pytest.approx(a.value - b.value)
    assert difference.stderr < 0.5 * a.stderr
    assert difference.psnr is None
    with pytest.raises(ValueError, match="same images, options and seed"):
        paired_difference(a, eq_t(model, images, seed=2, border="reflect"))
    with pytest.raises(ValueError, match="same images, options and seed"):
        paired_difference(a, eq_t(model, images, border="zero"))


def test_the_model_sees_full_batches(images: Tensor) -> None:
    sizes: list[int] = []

    def spy(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return x.mean((2, 3))

    loader = DataLoader(TensorDataset(images), batch_size=5)  # 14 loader batches
    eq_t(spy, loader, batch_size=32, n_samples=4)
    assert sum(sizes) == N * 5
    # 70 images: blocks of 32, 32 and 6; the samples of the last one share a batch.
    assert sorted(sizes) == sorted([32] * 5 * 2 + [6, 24])


def test_labels_come_from_the_loader(images: Tensor) -> None:
    model = torch_model()
    labels = torch.arange(N) % 4
    loader = DataLoader(TensorDataset(images, labels), batch_size=9)
    from_loader = consistency(model, loader, max_shift_pixels=2)
    from_tensor = consistency(model, images, labels=labels, max_shift_pixels=2)
    correct = (model(images).argmax(1) == labels).nonzero().flatten().numpy()
    assert 0 < len(correct) < N
    for table in (from_loader, from_tensor):
        assert np.array_equal(table["pairs_correct"].index, correct)
    assert from_loader.to_json() == from_tensor.to_json()


def test_models_are_left_as_they_were(images: Tensor) -> None:
    model = torch_model()
    x = images[:2].clone().requires_grad_()
    before = torch.random.get_rng_state()
    run(model, x, 2)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert x.grad is None
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("metric", METRIC_NAMES)
def test_unusable_models_and_images_are_refused(metric: str, images: Tensor) -> None:
    x = images[:2]

    def call(model: Any, images: Any) -> object:
        return measure(model, images, metric, groups="rotation", n_samples=2)

    training = nn.Sequential(nn.Flatten(), nn.Dropout(0.5))
    with pytest.raises(ValueError, match="eval"):
        call(training, x)
    with pytest.raises(ValueError, match="one row"):
        call(lambda x: x.mean((2, 3))[:1], x)
    with pytest.raises(ValueError, match="one row"):
        call(lambda x: x.mean((1, 2, 3)), x)
    with pytest.raises(TypeError, match="one Tensor"):
        call(lambda x: x.numpy(), x)
    with pytest.raises(TypeError, match="floating point"):
        call(lambda x: x.mean((2, 3)).argmax(1, keepdim=True), x)
    with pytest.raises(ValueError, match="NaN"):
        call(lambda x: x.mean((2, 3)) * torch.nan, x)
    with pytest.raises(ValueError, match="nothing to measure"):
        call(torch_model(), [])
    with pytest.raises(ValueError, match="NaN"):
        call(torch_model(), x * torch.nan)
    with pytest.raises(TypeError, match="image tensors"):
        call(torch_model(), ["cat.png"])
    with pytest.raises(TypeError, match="yield"):
        call(torch_model(), 3)
    with pytest.raises(ValueError, match="one shape"):
        call(lambda x: x.mean((2, 3)), [x, x[..., :6]])


def test_wrong_options_are_refused(images: Tensor) -> None:
    model, x = torch_model(), images[:2]
    for metrics, options, words in (
        ("eqt", {}, "Did you mean 'eq_t'"),
        ([], {}, "at least one"),
        ("eq_t", {"n_samples": 0}, "n_samples"),
        ("consistency", {"n_samples": 1}, "at least 2"),
        ("eq_t", {"seed": -1}, "seed"),
        ("eq_t", {"batch_size": 0}, "batch_size"),
        ("eq_t", {"options": {"eq_t": {"border": "mirror"}}}, "border"),
        ("eq_t", {"options": {"eq_t": {"margin": -1}}}, "margin"),
        ("eq_t", {"options": {"eq_t": {"data_range": 0}}}, "data_range"),
        ("eq_t", {"options": {"eq_t": {"max_shift": 0.01}}}, "nothing would move"),
        ("eq_t", {"options": {"eq_t": {"output_layout": NCHW}}}, "trivial"),
        ("consistency", {"options": {"consistency": {"max_shift_pixels": -1}}}, "max_shift"),
        ("consistency", {"labels": torch.zeros(3)}, "3 labels"),
        ("group_sample", {"options": {"group_sample": {"radius": -1.0}}}, "radius"),
        ("discrete_group", {"options": {"discrete_group": {"elements": []}}}, "at least one"),
        ("discrete_group", {"options": {"discrete_group": {"elements": ["rot45"]}}}, "rot"),
    ):
        with pytest.raises(ValueError, match=words):
            measure(model, x, metrics, **options)


def test_one_shot_iterators_serve_one_metric(images: Tensor) -> None:
    assert len(measure(torch_model(), iter([images[:2]]), "eq_t")) == 1
    with pytest.raises(ValueError, match="one-shot"):
        measure(torch_model(), iter([images[:2]]), "eq_t,eq_t_frac")


def test_dense_outputs_without_valid_pixels_are_refused(images: Tensor) -> None:
    def same(x: Tensor) -> Tensor:
        return x

    with pytest.raises(ValueError, match="No valid pixel"):
        measure(same, images, "eq_r", options={"eq_r": {"output_layout": NCHW}})
    with pytest.raises(ValueError, match="divides"):
        eq_t(lambda x: x[..., :5, :], images, output_layout=NCHW)


def test_progress_is_shown_on_request(images: Tensor, capsys: pytest.CaptureFixture[str]) -> None:
    measure(torch_model(), images[:2], "eq_t")
    assert capsys.readouterr().err == ""
    measure(torch_model(), images[:2], "eq_t", show_progress=True)
    assert "eq_t" in capsys.readouterr().err


def test_measure_returns_results_in_order(images: Tensor) -> None:
    table = measure(torch_model(), images[:2], ("eq_r", "eq_t"), n_samples=2)
    assert [type(r) for r in table] == [MetricResult] * 2
    assert [r.metric for r in table] == ["eq_r", "eq_t"]
    named = measure(torch_model(), images[:2], "lee_fd, group_sample", groups=["scale"])
    assert [f"{r.metric}:{r.variant}" for r in named] == ["lee_fd:scale", "group_sample:scale"]
