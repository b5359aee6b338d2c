"""``OnnxModel``: what the graph takes, from plain images; alike in this process and in a child."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import FeatureAblation, Occlusion
from torch import Tensor

pytest.importorskip("onnxruntime")

import onnxruntime
from onnx import TensorProto

from captum_lie import metrics
from captum_lie_onnx import Limits, OnnxModel, OnnxModelError, Preprocessing, inspect, quantize
from captum_lie_onnx.metadata import Metadata
from captum_lie_onnx.quantisation import Mode
from tests.onnx import toy_graphs as toy

IMAGES = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
MEANS = IMAGES.mean((2, 3))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.onnx"


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(TensorProto.FLOAT, 1e-6), (TensorProto.FLOAT16, 1e-3), (TensorProto.DOUBLE, 1e-6),
     (TensorProto.UINT8, 0.6)],
)  # fmt: skip
def test_input_types(path: Path, dtype: int, tolerance: float) -> None:
    model = OnnxModel(toy.scaled(path, dtype, ["n", 3, 8, 8], (2, 3)))
    scale = 255 if dtype == TensorProto.UINT8 else 1
    found = model(IMAGES)
    assert found.dtype == torch.float32
    assert (found - scale * MEANS).abs().max() < tolerance


def test_uint8_is_rounded(path: Path) -> None:
    model = OnnxModel(toy.scaled(path, TensorProto.UINT8, ["n", 3, 8, 8], (2, 3)))
    expected = (IMAGES * 255).round().mean((2, 3))
    assert torch.allclose(model(IMAGES), expected, atol=1e-4)
    assert (model(torch.ones(1, 3, 8, 8)) == 255).all()


def test_channels_last_is_inferred_from_the_shape(path: Path) -> None:
    model = OnnxModel(toy.scaled(path, TensorProto.FLOAT, ["n", 8, 8, 3], (1, 2)))
    assert torch.allclose(model(IMAGES), MEANS, atol=1e-6)
    assert model.input_size == (8, 8)


def test_preprocessing_outside_the_graph(path: Path) -> None:
    mean, std = (0.2, 0.4, 0.6), (0.5, 0.25, 2.0)
    about = Preprocessing(size=None, mean=mean, std=std, channels="BGR", included=False)
    found = OnnxModel(toy.good(path), preprocessing=about)(IMAGES)
    expected = (MEANS.flip(1) - torch.tensor(mean)) / torch.tensor(std)
    assert torch.allclose(found, expected, atol=1e-6)
    included = Preprocessing(size=None, mean=mean, std=std, included=True)
    assert torch.allclose(OnnxModel(path, preprocessing=included)(IMAGES), MEANS, atol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_a_fixed_batch_is_filled_up(path: Path, n: int) -> None:
    model = OnnxModel(toy.good(path, inputs=[toy.value("images", [2, 3, 8, 8])],
                               outputs=[toy.value("scores", [2, 3])]))  # fmt: skip
    assert torch.allclose(model(IMAGES[:n]), MEANS[:n], atol=1e-6)


def test_at_most_batch_size_images_a_call(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = OnnxModel(toy.good(path), batch_size=2)
    sizes = []
    run = model._file.engine.run

    def counting(name: str, value: np.ndarray, outputs: list[str]) -> list[np.ndarray]:
        sizes.append(len(value))
        return run(name, value, outputs)

    monkeypatch.setattr(model._file.engine, "run", counting)
    model(IMAGES)
    assert sizes == [2, 2, 1]
    with pytest.raises(ValueError, match="batch_size"):
        OnnxModel(path, batch_size=0)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(1, 3, 9, 8), "8 rows; got 9"),
        (torch.rand(1, 3, 8, 7), "8 columns; got 7"),
        (torch.rand(1, 1, 8, 8), "3 channels; got 1"),
    ],
)
def test_images_that_do_not_fit(path: Path, images: Tensor, message: str) -> None:
    with pytest.raises(OnnxModelError, match=message):
        OnnxModel(toy.good(path))(images)


def test_images_that_are_none(path: Path) -> None:
    model = OnnxModel(toy.good(path))
    with pytest.raises(TypeError):
        model(torch.ones(1, 3, 8, 8, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"N, C, H, W|four|4"):
        model(torch.rand(3, 8, 8))


def test_options_that_are_none(path: Path) -> None:
    toy.good(path)
    wrong: Any = "more"
    with pytest.raises(ValueError, match="optimization"):
        OnnxModel(path, optimization=wrong)
    unknown: Any = {"optimisation": "all"}
    with pytest.raises(TypeError, match="optimisation"):
        OnnxModel(path, **unknown)
    with pytest.raises(OnnxModelError, match="no output 'x'; it has scores"):
        OnnxModel(path, output="x")


def test_child_and_parent_give_the_same_bits_and_so_do_repeats(path: Path) -> None:
    toy.network(path)
    here = OnnxModel(path, threads=1)
    with OnnxModel(path, threads=1, limits=Limits()) as there:
        assert torch.equal(here(IMAGES), there(IMAGES))
        assert torch.equal(there(IMAGES), there(IMAGES))
    with pytest.raises(OnnxModelError, match="has ended"):
        there(IMAGES)
    for level in ("extended", "basic", "none"):
        other = OnnxModel(path, threads=1, optimization=level)
        assert torch.allclose(other(IMAGES), here(IMAGES), atol=1e-5)


def test_pickled_by_path(path: Path) -> None:
    model = OnnxModel(toy.network(path), threads=1, batch_size=2)
    copy = pickle.loads(pickle.dumps(model))
    assert torch.equal(copy(IMAGES), model(IMAGES))
    assert copy._batch == 2
    assert len(pickle.dumps(model)) < 1000


def test_dynamic_int8_does_not_depend_on_who_shares_the_batch(path: Path, tmp_path: Path) -> None:
    int8 = quantize(toy.network(path), tmp_path / "int8.onnx", "dynamic")
    loud = IMAGES.clone()
    loud[1:] *= 10
    model = OnnxModel(int8, threads=1)
    assert torch.equal(model(loud)[:1], model(IMAGES[:1]))
    session = onnxruntime.InferenceSession(str(int8), providers=["CPUExecutionProvider"])
    raw = [session.run(None, {"images": x.numpy()})[0][0] for x in (loud, IMAGES[:1])]
    assert np.abs(raw[0] - raw[1]).max() > 1e-4  # the trap that it avoids


def test_quantisation_is_found(path: Path, tmp_path: Path) -> None:
    assert inspect(toy.network(path)).quantisation == "none"
    modes: dict[Mode, str] = {"dynamic": "dynamic", "static": "static (QDQ)"}
    for mode, found in modes.items():
        int8 = quantize(path, tmp_path / f"{mode}.onnx", mode, IMAGES)
        identity = inspect(int8)
        assert (identity.quantisation, identity.precision) == (found, "int8")
    half = toy.scaled(tmp_path / "half.onnx", TensorProto.FLOAT16, ["n", 3, 8, 8], (2, 3))
    assert inspect(half).precision == "float16"
    with pytest.raises(ValueError, match="calibrate"):
        quantize(path, tmp_path / "none.onnx", "static")
    wrong: Any = "half"
    with pytest.raises(ValueError, match="reduce_range"):
        quantize(path, tmp_path / "none.onnx", reduce_range=wrong)
    with pytest.raises(ValueError, match="mode"):
        quantize(path, tmp_path / "none.onnx", wrong)
    assert not (tmp_path / "none.onnx").exists()
    assert not list(tmp_path.glob(".quantize-*"))


def test_identity_is_plain(path: Path) -> None:
    identity = inspect(toy.network(path))
    assert identity.operators == {"Conv": 1, "ReduceMean": 1, "Relu": 1}
    assert identity.dynamic_axes == {"images": [0], "scores": [0]}
    assert identity.inputs == [{"name": "images", "dtype": "float32", "shape": ["batch", 3, 8, 8]}]
    assert json.loads(json.dumps(identity.to_dict()))["opset"] == {"ai.onnx": 20}
    assert identity.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    model = toy.parsed(path)
    model.doc_string = "the same graph in another file"
    path.write_bytes(model.SerializeToString())
    other = inspect(path)
    assert other.sha256 == hashlib.sha256(path.read_bytes()).hexdigest() != identity.sha256
    assert other.operators == identity.operators


def test_captums_perturbation_methods(path: Path) -> None:
    model = OnnxModel(toy.good(path))
    x = IMAGES[:2]
    found = FeatureAblation(model).attribute(x, target=1, baselines=0.0)
    expected = torch.zeros_like(x)
    expected[:, 1] = x[:, 1] / 64  # a pixel's share of the mean of its channel
    assert torch.allclose(found, expected, atol=1e-6)
    window = Occlusion(model).attribute(x, target=2, sliding_window_shapes=(3, 8, 8), baselines=0.0)
    assert torch.allclose(window, MEANS[:2, 2, None, None, None].expand_as(x), atol=1e-6)


def test_every_metric_takes_it(path: Path) -> None:
    model = OnnxModel(toy.network(path))
    big = OnnxModel(path)
    table = metrics.measure(
        model, IMAGES, groups=["rotation"], n_samples=2, output_fn=None,
        options={"consistency": {"max_shift_pixels": 2}, "eq_t": {"max_shift": 0.25}},
    )  # fmt: skip
    assert {r.metric for r in table} == set(metrics.METRIC_NAMES)
    assert all(np.isfinite(r.value) for r in table)
    assert torch.equal(big(IMAGES), model(IMAGES))


def test_malformed_normalisation_is_explained(path: Path) -> None:
    about = Preprocessing(mean=(0.5, 0.5), std=(0.5, 0.5), included=False)
    with pytest.raises(OnnxModelError, match="2 numbers, but the images have 3 channels"):
        OnnxModel(toy.good(path), preprocessing=about)(IMAGES)


def test_an_assumption_holds_only_where_the_file_says_nothing(path: Path) -> None:
    assumed = Preprocessing(mean=(0.5,), std=(0.25,), included=False)
    silent = OnnxModel(toy.good(path), assumed=assumed)
    assert not silent.stated
    assert torch.allclose(silent(IMAGES), (MEANS - 0.5) / 0.25, atol=1e-5)
    model = toy.parsed(path)
    toy.add_metadata(model, Metadata(Preprocessing(), 3, "toy", "0"))
    path.write_bytes(model.SerializeToString())
    speaking = OnnxModel(path, assumed=assumed)
    assert speaking.stated
    assert torch.allclose(speaking(IMAGES), MEANS, atol=1e-6)
    last = OnnxModel(toy.scaled(path, TensorProto.FLOAT, ["n", 8, 8, 3], (1, 2)), assumed=assumed)
    assert last.preprocessing.layout == "NHWC"
    assert torch.allclose(last(IMAGES), (MEANS - 0.5) / 0.25, atol=1e-5)


def test_a_negative_size_means_any(path: Path) -> None:
    model = OnnxModel(toy.good(path, inputs=[toy.value("images", [-1, 3, -1, -1])]))
    assert model.input_size is None
    assert model.fixed_batch is None
    assert torch.allclose(model(IMAGES), MEANS, atol=1e-6)
