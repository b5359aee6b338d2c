"""Exported graphs agree with their models, appear whole or not at all, and say what they are."""

from __future__ import annotations

import json
import logging
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.torch_version import TorchVersion

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from captum_lie.errors import UserError
from captum_lie.examples import MODEL_NAMES, load_images, load_model
from captum_lie.preprocessing import Normalized
from captum_lie_onnx import (
    OnnxModel,
    OnnxModelError,
    conversion,
    export,
    export_lie_derivative,
    exporting,
)
from captum_lie_onnx.metadata import Metadata, Preprocessing, read
from tests.onnx import toy_graphs as toy

IMAGES = load_images(5)[0]
TOLERANCE = 1e-4


def run(path: Path, images: Tensor) -> Tensor:
    (scores,) = toy.run(path, images, "scores")
    return scores


def properties(path: Path) -> dict[str, str]:
    return {p.key: p.value for p in onnx.load(str(path)).metadata_props}


class Pooled(nn.Module):
    """The least classifier: the mean of each channel."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


class Wrapped(nn.Module):
    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("exported")

    def path(name: str) -> Path:
        found = folder / name / f"{name}.onnx"
        if not found.parent.exists():
            found.parent.mkdir()
            # A single image, from which the batch must be able to vary nevertheless.
            assert export(load_model(name), IMAGES[:1], found, name=name) == found
        return found

    return path


@pytest.mark.parametrize("name", MODEL_NAMES)
@pytest.mark.parametrize("n", [1, 2, 5])
def test_scores_agree_at_any_batch_size(exported: Callable[[str], Path], name: str, n: int) -> None:
    with torch.no_grad():
        expected = load_model(name)(IMAGES[:n])
    found = run(exported(name), IMAGES[:n])
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= TOLERANCE * expected.abs().max()


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_one_valid_file_with_known_names(exported: Callable[[str], Path], name: str) -> None:
    path = exported(name)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    onnx.checker.check_model(str(path), full_check=True)
    graph = onnx.load(str(path)).graph
    (value,), (scores,) = graph.input, graph.output
    assert (value.name, scores.name) == ("images", "scores")
    for declared in (value, scores):
        assert declared.type.tensor_type.shape.dim[0].dim_param == "batch"


def test_the_file_says_nothing_of_the_machine_it_was_made_on(
    exported: Callable[[str], Path],
) -> None:
    content = exported("vit").read_bytes()
    for place in (Path(torch.__file__).parent, Path(exporting.__file__).parent, Path.home()):
        assert str(place).encode() not in content


def test_metadata_of_a_model_that_takes_plain_images(exported: Callable[[str], Path]) -> None:
    found = read(properties(exported("cnn")))
    assert found is not None
    assert found.source == "cnn"
    assert found.num_classes == 8
    assert found.preprocessing == Preprocessing(size=(32, 32))


def test_metadata_of_a_model_that_normalises(tmp_path: Path) -> None:
    model = Normalized(Pooled(), (0.5, 0.25, 0.125), (0.25, 0.5, 1.0), (32, 32)).eval()
    found = read(properties(export(model, IMAGES[:2], tmp_path / "model.onnx")))
    assert found is not None
    assert found.source == "Pooled"
    assert found.preprocessing == Preprocessing(
        (32, 32), (0.5, 0.25, 0.125), (0.25, 0.5, 1.0), included=True
    )


def test_normalisation_outside_the_graph_is_told_to_who_runs_it(tmp_path: Path) -> None:
    about = Preprocessing(mean=(0.5, 0.25, 0.125), std=(0.25, 0.5, 1.0), channels="BGR")
    example = torch.randn(2, 3, 32, 32)
    path = export(Pooled().eval(), example, tmp_path / "model.onnx", preprocessing=about)
    mean, std = (torch.tensor(v)[:, None, None] for v in (about.mean, about.std))
    expected = ((IMAGES.flip(1) - mean) / std).mean((2, 3))
    assert torch.allclose(OnnxModel(path)(IMAGES), expected, atol=1e-5)


def test_preprocessing_must_fit(tmp_path: Path) -> None:
    about = Preprocessing(mean=(0.5,) * 3, std=(0.25,) * 3)
    with pytest.raises(ValueError, match="normalises its input itself"):
        export(
            Normalized(Pooled()).eval(), IMAGES[:2], tmp_path / "model.onnx", preprocessing=about
        )
    with pytest.raises(ValueError, match="64"):
        export(
            Pooled().eval(), IMAGES[:2], tmp_path / "m.onnx", preprocessing=Preprocessing((64, 64))
        )


def test_channels_other_than_three_and_images_that_are_not_square(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), Pooled()).eval()
    path = export(model, torch.rand(3, 1, 24, 40), tmp_path / "grey.onnx")
    x = torch.rand(4, 1, 24, 40)
    assert torch.allclose(run(path, x), model(x).detach(), atol=1e-5)


def test_a_fixed_batch(tmp_path: Path) -> None:
    model = Wrapped(lambda x: x.reshape(3, -1)[:, :4]).eval()
    with pytest.raises(ValueError, match="dynamic_batch=False"):
        export(model, IMAGES[:3], tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []
    path = export(model, IMAGES[:3], tmp_path / "model.onnx", dynamic_batch=False)
    assert torch.equal(run(path, IMAGES[:3]), model(IMAGES[:3]))
    assert torch.equal(OnnxModel(path)(IMAGES), IMAGES.flatten(1)[:, :4])


def test_opset(tmp_path: Path) -> None:
    path = export(Pooled().eval(), IMAGES[:2], tmp_path / "model.onnx", opset=18)
    assert [o.version for o in onnx.load(str(path)).opset_import if not o.domain] == [18]
    with pytest.raises(ValueError, match="between 18 and"):
        export(Pooled().eval(), IMAGES[:2], tmp_path / "old.onnx", opset=11)


@pytest.mark.parametrize("version", ["2.6.0+cu124", "2.8.0"])
def test_exporters_that_guess_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr(torch, "__version__", TorchVersion(version))
    with pytest.raises(
        UserError, match=r"torch 2\.9 or newer.* got 2\.[68]\.0.*captum-lie\[onnx\]"
    ):
        export(Pooled().eval(), IMAGES[:2], tmp_path / "model.onnx")
    with pytest.raises(UserError, match="torch 2"):
        export_lie_derivative(Pooled().eval(), "rotation", IMAGES[:2], tmp_path / "lie.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("on_request", [True, False])
def test_weights_beside_the_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_request: bool
) -> None:
    if not on_request:
        monkeypatch.setattr(conversion, "LARGEST_SINGLE_FILE", 1000)
    model = load_model("cnn")
    path = export(model, IMAGES[:2], tmp_path / "cnn.onnx", external_data=on_request)
    assert {file.name for file in tmp_path.iterdir()} == {"cnn.onnx", "cnn.onnx.data"}
    with torch.no_grad():
        assert torch.allclose(run(path, IMAGES), model(IMAGES), atol=1e-4)


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy.fill_the_disk(monkeypatch)
    with pytest.raises(OSError, match="No space left"):
        export(Pooled().eval(), IMAGES[:2], tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_differs_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "model.onnx"
    there.write_bytes(b"an earlier export")
    right = conversion.convert

    def wrong(model: nn.Module, *args: Any, **options: Any) -> Any:
        return right(Wrapped(lambda x: 1.001 * model(x)).eval(), *args, **options)

    monkeypatch.setattr(exporting, "convert", wrong)
    with pytest.raises(ValueError, match=r"differs from the model by .* more than 0\.0001"):
        export(Pooled().eval(), IMAGES[:2], there)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"an earlier export"]
    export(Pooled().eval(), IMAGES[:2], there, tolerance=2e-3)


def test_scores_that_are_not_numbers_are_no_agreement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = conversion.convert
    monkeypatch.setattr(
        exporting,
        "convert",
        lambda model, *args, **options: right(
            Wrapped(lambda x: (-1 - x.mean((2, 3))).log()).eval(), *args, **options
        ),
    )
    with pytest.raises(ValueError, match="differs from the model by inf"):
        export(Pooled().eval(), IMAGES[:2], tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("model", "example", "error", "words"),
    [
        (load_model("cnn").train(), IMAGES[:2], ValueError, "training mode"),
        (Pooled().train(), IMAGES[:2], ValueError, "training mode"),
        (nn.Sequential(Pooled().eval(), nn.Dropout()), IMAGES[:2], ValueError, "training mode"),
        (lambda x: x, IMAGES[:2], TypeError, "torch.nn.Module"),
        (Pooled().eval(), IMAGES[0], ValueError, "N, C, H, W"),
        (Pooled().eval(), IMAGES[:0], ValueError, "empty"),
        (Pooled().eval(), np.zeros((2, 3, 32, 32)), TypeError, "torch.Tensor"),
        (Wrapped(lambda x: x).eval(), IMAGES[:2], ValueError, r"scores \[N, K\]"),
        (Wrapped(lambda x: x.mean((0, 2, 3))).eval(), IMAGES[:2], ValueError, r"scores \[N, K\]"),
        (Wrapped(lambda x: {"logits": x}).eval(), IMAGES[:2], TypeError, "one Tensor"),
        (
            Wrapped(lambda x: torch.special.bessel_j0(x).mean((2, 3))).eval(),
            IMAGES[:2],
            ValueError,
            r"no counterpart of the operator \S*bessel_j0",
        ),
        (
            Wrapped(lambda x: x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))).eval(),
            IMAGES[:2],
            ValueError,
            "Control flow|control flow",
        ),
    ],
)
def test_what_cannot_be_exported(
    tmp_path: Path, model: Any, example: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        export(model, example, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="create it first"):
        export(Pooled().eval(), IMAGES[:2], tmp_path / "missing" / "model.onnx")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        export(Pooled().eval(), IMAGES[:2], tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError):
        export(Pooled().eval(), IMAGES[:2], tmp_path / "model.onnx")


def test_nothing_is_printed_and_nothing_changes(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model, example = load_model("cnn"), IMAGES[:2].clone().requires_grad_()
    parameter = next(model.parameters())
    parameter.grad = torch.ones_like(parameter)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    required = [p.requires_grad for p in model.parameters()]
    torch.manual_seed(3)
    state, disabled = torch.get_rng_state(), logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export(model, example, tmp_path / "cnn.onnx")
    assert torch.equal(torch.get_rng_state(), state)
    assert logging.root.manager.disable == disabled
    assert capfd.readouterr() == ("", "")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == required
    assert torch.equal(parameter.grad, torch.ones_like(parameter))
    assert example.grad is None
    assert not model.training
    assert torch.is_grad_enabled()


def test_a_models_own_warnings_are_heard(tmp_path: Path) -> None:
    class Warning_(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if torch.compiler.is_exporting():
                warnings.warn("this model is deprecated in earnest", UserWarning, stacklevel=1)
            return x.mean((2, 3))

    with pytest.warns(UserWarning, match="in earnest"):
        export(Warning_().eval(), IMAGES[:2], tmp_path / "model.onnx")


def test_metadata_survive_the_file() -> None:
    metadata = Metadata(
        Preprocessing((24, 32), (0.1, 0.2), (0.3, 0.4), "NHWC", "BGR", False), 7, "a µ", "1.2"
    )
    model = onnx.ModelProto()
    model.metadata_props.add(key="author", value="someone")
    toy.add_metadata(model, replaced := Metadata(Preprocessing(), None, "b", "1"))
    assert read({p.key: p.value for p in model.metadata_props}) == replaced
    toy.add_metadata(model, metadata)
    found = {p.key: p.value for p in model.metadata_props}
    assert len(found) == len(model.metadata_props)
    assert found["author"] == "someone"
    assert read(found) == metadata
    assert read({"author": "someone"}) is None


@pytest.mark.parametrize(
    "change",
    [
        {"preprocessing": "{"},
        {"preprocessing": "[]"},
        {"preprocessing": json.dumps({"size": [3]})},
        {"preprocessing": json.dumps({"size": ["a", 1]})},
        {"preprocessing": json.dumps({"mean": [0.5], "std": [0.0]})},
        {"preprocessing": json.dumps({"mean": ["x"], "std": [1.0]})},
        {"preprocessing": json.dumps({"mean": [0.5]})},
        {"preprocessing": json.dumps({"layout": "HWC"})},
        {"preprocessing": json.dumps({"included": "yes"})},
        {"preprocessing": json.dumps({"unknown": 1})},
        {"preprocessing": "[" * 100_000},
        {"num_classes": '"many"'},
        {"num_classes": "true"},
        {"source": "1"},
        {"version": "null"},
    ],
)
def test_malformed_metadata_are_refused(change: dict[str, str]) -> None:
    model = onnx.ModelProto()
    toy.add_metadata(model, Metadata(Preprocessing(), 3, "a", "1"))
    found = {p.key: p.value for p in model.metadata_props}
    assert read(found) is not None
    with pytest.raises(OnnxModelError, match="malformed"):
        read(found | {f"captum_lie.{key}": value for key, value in change.items()})


def test_metadata_can_be_read_from_the_runtime(
    exported: Callable[[str], Path], tmp_path: Path
) -> None:
    path = tmp_path / "copy.onnx"
    shutil.copy(exported("cnn"), path)
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert read(session.get_modelmeta().custom_metadata_map) == read(properties(path))
