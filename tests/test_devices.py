"""The laws on every device: on the CPU always, on a GPU where there is one (``-m gpu``).

On a GPU in full float32: what TensorFloat-32 rounds away is as large as many derivatives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from captum_lie import (
    LayerLieDerivative,
    LayerwiseEquivarianceError,
    LieDerivative,
    LiePenalty,
    LocalEquivarianceError,
    SubnetworkEquivarianceError,
    get_groups,
    lie_derivative,
    metrics,
)
from tests.toy_models import build, images

NAMES = ("resnet", "vit", "mixer")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield request.param
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def model_and_images(name: str, device: str, dtype: torch.dtype) -> tuple[nn.Module, Tensor]:
    return build(name, dtype=dtype).to(device), images(dtype=dtype).to(device)


def softmax_of(model: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda x: model(x).softmax(1)


@pytest.mark.parametrize("name", NAMES)
def test_forward_mode_is_the_limit_of_finite_differences(name: str, device: str) -> None:
    smooth = "resnet_smooth" if name == "resnet" else name
    model, x = model_and_images(smooth, device, torch.float64)
    step = 1e-5
    with torch.no_grad():
        for group in get_groups("all", interpolation="fourier"):
            there, back = (softmax_of(model)(group.act(x, t)) for t in (step, -step))
            expected = (there - back) / (2 * step)
            found = lie_derivative(softmax_of(model), x, group)
            torch.testing.assert_close(found, expected, atol=1e-8, rtol=1e-6)
            assert expected.abs().max() > 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_reverse_mode_is_forward_mode(name: str, device: str) -> None:
    model, x = model_and_images(name, device, torch.float64)
    every = get_groups("all")
    score = LocalEquivarianceError(model).score(x, every)
    for i, group in enumerate(every):
        attributed = LocalEquivarianceError(model).attribute(x, group=group)
        torch.testing.assert_close(attributed.sum((1, 2, 3)), score[:, i])


@pytest.mark.parametrize("name", NAMES)
def test_contributions_sum_to_the_whole(name: str, device: str) -> None:
    model, x = model_and_images(name, device, torch.float64)
    method = LayerwiseEquivarianceError(model)
    groups = ["rotation", "translation_x", "brightness"]
    score = LocalEquivarianceError(model).score(x, groups).cpu()
    for i, result in enumerate(method.attribute(x, groups)):
        torch.testing.assert_close(result.self_contributions.nansum(0), score[:, i])
    derivative = lie_derivative(softmax_of(model), x, groups[0])[:, 2].cpu()
    found = method.attribute(x, groups[0], "target", target=2)
    torch.testing.assert_close(found.self_contributions.nansum(0), derivative)


def test_the_penalty_is_lee_and_its_gradient_that_of_finite_differences(device: str) -> None:
    model, x = model_and_images("resnet_smooth", device, torch.float64)
    penalty = LiePenalty("rotation")
    value = penalty(model, x)
    torch.testing.assert_close(value, LocalEquivarianceError(model).score(x, "rotation").mean())
    value.backward()
    weight = next(model.parameters())
    assert weight.grad is not None
    step = torch.zeros_like(weight)
    step.flatten()[7] = 1e-5
    with torch.no_grad():
        weight.add_(step)
        there = penalty(model, x)
        weight.sub_(2 * step)
        back = penalty(model, x)
    torch.testing.assert_close((there - back) / 2e-5, weight.grad.flatten()[7], rtol=1e-5, atol=0)


def of(result: metrics.MetricResult) -> Tensor:
    return torch.from_numpy(result.per_example)


Measured = Callable[[nn.Module, Tensor], Tensor]

MEASURED: dict[str, Measured] = {
    "score": lambda model, x: LocalEquivarianceError(model).score(x, "all"),
    "l1": lambda model, x: LocalEquivarianceError(model, norm="l1").score(x, "all"),
    "control": lambda model, x: LocalEquivarianceError(model).control_score(x, "all"),
    "gram": lambda model, x: LocalEquivarianceError(model).gram(x),
    "pixels": lambda model, x: LieDerivative(model).attribute(x, target=1, group="scale"),
    "layer": lambda model, x: LayerLieDerivative(model, next(model.children())).attribute(
        x, target=1, group="rotation"
    ),
    "layers": lambda model, x: (
        LayerwiseEquivarianceError(model).attribute(x, "rotation").contributions
    ),
    "norms": lambda model, x: (
        LayerwiseEquivarianceError(model).attribute(x, "rotation", "norm").contributions
    ),
    "subnetworks": lambda model, x: (
        SubnetworkEquivarianceError(model).attribute(x, "rotation").squared_norm
    ),
    "eq_t": lambda model, x: of(metrics.eq_t(model, x, n_samples=2)),
    "group sample": lambda model, x: of(
        metrics.group_sample_error(model, x, "rotation", n_samples=2)[0]
    ),
}


@pytest.mark.parametrize("what", MEASURED)
@pytest.mark.parametrize("name", NAMES)
def test_single_precision_gives_what_double_on_the_cpu_gives(
    name: str, what: str, device: str
) -> None:
    expected = MEASURED[what](*model_and_images(name, "cpu", torch.float64)).double()
    found = MEASURED[what](*model_and_images(name, device, torch.float32)).double().cpu()
    scale = expected.nan_to_num().abs().max().item()
    assert scale > 0
    torch.testing.assert_close(found, expected, atol=1e-4 * scale, rtol=0, equal_nan=True)
