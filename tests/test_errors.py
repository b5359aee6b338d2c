"""Bad input: the message says the cause, what was got, and the remedy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_lie import LieDerivative, LocalEquivarianceError, get_group, lie_derivative
from captum_lie.layouts import NCHW
from tests.toy_models import build, images, untyped

ENTRIES: dict[str, Callable[[Any, Any], Any]] = {
    "lie_derivative": lambda model, x: lie_derivative(model, x, "rotation"),
    "LieDerivative": lambda model, x: LieDerivative(model).attribute(x, target=1),
    "LEE.attribute": lambda model, x: LocalEquivarianceError(model).attribute(x),
    "LEE.score": lambda model, x: LocalEquivarianceError(model).score(x),
    "LEE.control_score": lambda model, x: LocalEquivarianceError(model).control_score(x),
    "LEE.gram": lambda model, x: LocalEquivarianceError(model).gram(x),
}
everywhere = pytest.mark.parametrize("entry", ENTRIES)


def with_nan() -> Tensor:
    x = images(3)
    x[1, 0, 2, 2] = torch.nan
    return x


@everywhere
@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (lambda: images()[0], ValueError, r"got shape \(3, 8, 12\).*unsqueeze"),
        (lambda: images()[None], ValueError, r"\[N, C, H, W\]; got shape \(1, 2, 3, 8, 12\)"),
        (lambda: (images() * 255).byte(), TypeError, r"torch.uint8.*x.float\(\) / 255"),
        (with_nan, ValueError, r"NaN or infinite values \(examples 1\)"),
        (lambda: images() / 0, ValueError, "NaN or infinite"),
        (lambda: images()[:0], ValueError, "empty"),
        (lambda: images().numpy(), TypeError, "torch.Tensor or a tuple of them; got ndarray"),
        (lambda: [images()], TypeError, "got list"),
        (lambda: (), ValueError, "No input"),
        (lambda: (images(2), images(3)), ValueError, r"same number of examples; got \[2, 3\]"),
    ],
)
def test_unusable_images(
    entry: str, bad: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ENTRIES[entry](build("resnet"), bad())


@everywhere
@pytest.mark.parametrize(
    "module",
    [nn.BatchNorm2d(3), nn.Dropout(0.1), nn.Dropout2d(0.5), nn.RReLU()],
    ids=lambda m: type(m).__name__,
)
def test_training_mode_is_refused_where_it_matters(entry: str, module: nn.Module) -> None:
    model = nn.Sequential(module, build("resnet", dtype=torch.float32)).eval()
    x = images(dtype=torch.float32)
    ENTRIES[entry](model, x)
    module.train()
    with pytest.raises(ValueError, match=rf"training mode: 0 \({type(module).__name__}\).*eval"):
        ENTRIES[entry](model, x)
    with pytest.raises(ValueError, match="training mode"):
        ENTRIES[entry](model.forward, x)


def test_training_mode_is_harmless_in_models_that_ignore_it() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Dropout(0.0), nn.Flatten()).double()
    assert model.training
    assert lie_derivative(model, images(), "rotation").isfinite().all()


@everywhere
def test_models_that_return_no_tensor(entry: str) -> None:
    with pytest.raises(
        TypeError, match=r"must return one Tensor; got dict.*model\(x\)\['logits'\]"
    ):
        ENTRIES[entry](lambda x: {"logits": x.mean((2, 3))}, images())


@everywhere
def test_models_that_return_no_numbers_with_a_derivative(entry: str) -> None:
    for classes in (lambda x: (x.mean((2, 3)) > 0.5).long(), lambda x: x.mean((2, 3)) > 0.5):
        with pytest.raises(TypeError, match=r"floating point.*got torch\.(int64|bool)\. Let it"):
            ENTRIES[entry](classes, images())


def test_complex_outputs_have_a_derivative() -> None:
    x = images()
    found = lie_derivative(lambda x: torch.fft.rfft2(x)[..., 1], x, "rotation")
    expected = torch.fft.rfft2(get_group("rotation").generator(x))[..., 1]
    torch.testing.assert_close(found, expected)


@everywhere
def test_internal_batch_size_is_positive(entry: str) -> None:
    model, x = build("resnet"), images()
    calls: dict[str, Callable[[], Any]] = {
        "lie_derivative": lambda: lie_derivative(model, x, internal_batch_size=0),
        "LieDerivative": lambda: LieDerivative(model).attribute(x, target=1, internal_batch_size=0),
        "LEE.attribute": lambda: LocalEquivarianceError(model).attribute(x, internal_batch_size=0),
        "LEE.score": lambda: LocalEquivarianceError(model).score(x, internal_batch_size=0),
        "LEE.control_score": lambda: LocalEquivarianceError(model).control_score(
            x, internal_batch_size=0
        ),
        "LEE.gram": lambda: LocalEquivarianceError(model).gram(x, internal_batch_size=0),
    }
    with pytest.raises(ValueError, match="internal_batch_size must be at least 1"):
        calls[entry]()


def test_unknown_names() -> None:
    model, x = build("resnet"), images()
    with pytest.raises(ValueError, match=r"Unknown group 'spin'\. Choose from translation_x"):
        LieDerivative(model).attribute(x, target=1, group="spin")
    with pytest.raises(ValueError, match="Unknown group"):
        LocalEquivarianceError(model).score(x, ["rotation", "spin"])
    with pytest.raises(ValueError, match="Unknown norm 'l3'"):
        LocalEquivarianceError(model, norm=untyped("l3"))
    with pytest.raises(ValueError, match="Unknown output_layout"):
        LocalEquivarianceError(model, output_layout=untyped("nchw"))
    with pytest.raises(ValueError, match="Unknown output_layout"):
        lie_derivative(model, x, output_layout=untyped("nchw"))


def test_outputs_that_lee_cannot_use() -> None:
    x = images()
    for output in (lambda x: x.mean((1, 2, 3)), lambda x: x.mean((1, 2, 3))[:, None]):
        with pytest.raises(ValueError, match=r"at least two classes.*output_fn=torch.sigmoid"):
            LocalEquivarianceError(output).score(x)
        assert LocalEquivarianceError(output, torch.sigmoid).score(x).shape == (2, 10)
    dense = LocalEquivarianceError(build("dense"), output_layout=NCHW)
    assert dense.score(x).shape == (2, 10)
    with pytest.raises(ValueError, match=r"trivial layout.*Use score"):
        dense.attribute(x)
    with pytest.raises(ValueError, match="trivial output layout"):
        dense.control_score(x)
    with pytest.raises(ValueError, match="belongs to norm='l2'"):
        LocalEquivarianceError(build("resnet"), norm="l1").gram(x)
    with pytest.raises(ValueError, match="n_probes must be at least 4"):
        LocalEquivarianceError(build("resnet")).control_score(x, n_probes=3)
    with pytest.raises(ValueError, match=r"\[N, C, H, W\]"):
        lie_derivative(build("resnet"), x, output_layout=NCHW)


def test_loaders_that_cannot_be_evaluated() -> None:
    method = LocalEquivarianceError(build("resnet"))
    with pytest.raises(ValueError, match="no images"):
        method.evaluate([])
    with pytest.raises(TypeError, match="got str"):
        method.evaluate(["image.png"])
