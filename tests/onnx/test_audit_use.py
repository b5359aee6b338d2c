"""An audit of files as one finds them: scores with trailing axes, unstated preprocessing, grey
images and images of different sizes."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner, Result

pytest.importorskip("onnxruntime")

from onnx import helper

from captum_lie.cli.application import app
from captum_lie.errors import UnsupportedModelError
from captum_lie_onnx import AuditReport, OnnxModel, OnnxModelError, Preprocessing, audit
from captum_lie_onnx.assumptions import constant_answers
from captum_lie_onnx.audit_settings import AuditOptions
from captum_lie_onnx.images import Wanted, read_images
from captum_lie_onnx.page import render_page
from tests.onnx import toy_graphs as toy

if TYPE_CHECKING:
    from typing_extensions import Unpack

IMAGES = torch.rand(9, 3, 16, 16, generator=torch.Generator().manual_seed(0))
QUICK = ["--groups", "rotation", "--metrics", "consistency", "--samples", "2", "--limit", "9"]
UNSTATED = "does not say how its images are prepared"


def classifier(path: Path, trailing: int = 0, channels: int = 3, side: int | str = 16) -> Path:
    """A convolution, its ReLU and the mean over pixels, ``[N, 4]`` with axes of one behind."""
    weight = np.random.default_rng(0).normal(size=(4, channels, 3, 3))
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["raw"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["raw"], ["active"]),
        helper.make_node("GlobalAveragePool", ["active"], ["pooled"]),
        helper.make_node("Mul", ["pooled", "eight"], ["loud"]),
        helper.make_node("Reshape", ["loud", "shape"], ["scores"]),
    ]
    shape = [0, 4, *[1] * trailing]
    return toy.save(
        path,
        nodes,
        inputs=[toy.value("images", ["n", channels, side, side])],
        outputs=[toy.value("scores", ["n", *shape[1:]])],
        initializers=[
            toy.tensor("w", weight),
            toy.tensor("eight", 8),
            toy.tensor("shape", shape, np.int64),
        ],
    )


class Twin(nn.Module):
    """The same in PyTorch, as a fully convolutional classifier would give it."""

    def __init__(self, trailing: int, channels: int = 3) -> None:
        super().__init__()
        weight = np.random.default_rng(0).normal(size=(4, channels, 3, 3))
        self.weight = nn.Parameter(torch.from_numpy(weight).float())
        self.trailing = trailing
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        found = 8 * torch.conv2d(x, self.weight, padding=1).relu().mean((2, 3))
        return found.reshape(len(found), 4, *[1] * self.trailing)


def look(
    path: Path,
    images: Tensor | Path | str = IMAGES,
    reference: nn.Module | Path | str | None = None,
    **options: Unpack[AuditOptions],
) -> AuditReport:
    settings: AuditOptions = {"groups": ["rotation"], "metrics": ["consistency"], "n_samples": 2}
    settings.update(options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return audit(path, images, reference, **settings)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.onnx"


@pytest.mark.parametrize("trailing", [1, 2])
def test_scores_with_axes_of_one_behind_them_are_scores(
    path: Path, tmp_path: Path, trailing: int
) -> None:
    plain = look(classifier(tmp_path / "plain.onnx"))
    found = look(classifier(path, trailing), IMAGES, Twin(trailing))
    assert found.passed, found.failures
    assert found.candidate.outputs.shape == (9, 4)
    expected = plain.comparison["candidate"]
    assert found.comparison["candidate"].to_numpy() == pytest.approx(expected.to_numpy())
    lee = found.comparison.set_index("metric").loc["lee"]
    assert lee["candidate"] > 0  # a softmax over the last axis would be constant
    assert lee["candidate"] == pytest.approx(lee["reference"], rel=0.05)


def test_other_axes_are_no_scores(path: Path) -> None:
    nodes, weights = toy.means(axes=(3,))
    toy.save(path, nodes, initializers=weights, inputs=[toy.value("images", ["n", 3, 16, 16])],
             outputs=[toy.value("scores", ["n", 3, 16])])  # fmt: skip
    with pytest.raises(ValueError, match=r"\[N, K\].*\(9, 3, 16\)"):
        look(path)


def test_a_reference_that_fails_on_the_images_is_the_users(path: Path, tmp_path: Path) -> None:
    classifier(path)
    with pytest.raises(UnsupportedModelError, match=r"Twin fails on images of shape \[2, 3, 16"):
        look(path, IMAGES, Twin(0, channels=5))
    file = tmp_path / "mine.py"
    file.write_text("from torch import nn\ndef build(): return nn.Linear(5, 4)\n")
    out = tmp_path / "out"
    result = run("audit", path, "--reference", f"{file}:build", "--out", out, *QUICK)
    assert result.exit_code == 2
    assert "fails on images of shape [2, 3, 16, 16]" in result.output
    assert not out.exists()


def test_the_terminal_shows_the_behaviour(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run("audit", classifier(path), "--out", out, *QUICK)
    assert result.exit_code == 0, result.output
    report = json.loads((out / "audit.json").read_text())
    found = {(r["metric"], r["variant"]): r["candidate"] for r in report["comparison"]}
    shown = words(result.stdout)
    assert f"LEE, rotation {found['lee', 'rotation']:.3g} ±" in shown
    for label, key in (
        ("random shifts (consistency, pairs)", ("consistency", "pairs")),
        ("shift by 4 px", ("changed_by_shift", "4 px")),
        ("rotation by 15°", ("changed_by_rotation", "15 °")),
    ):
        assert f"{label} {100 * found[key]:.1f} ±" in shown
    again = run("audit", path, "--reference", path, "--out", out, *QUICK)
    lee = f"{found['lee', 'rotation']:.3g} ± "
    (row,) = (line for line in again.stdout.splitlines() if "LEE, rotation" in line)
    assert row.count(lee) == 2
    assert "Run on " in again.stdout


def test_what_was_assumed_is_said(path: Path, tmp_path: Path) -> None:
    report = look(classifier(path))
    assert [UNSTATED in note for note in report.notes].count(True) == 1
    assert report.settings["preprocessing"]["from"] == "assumed"
    assert UNSTATED in render_page(report)
    assert UNSTATED in json.loads(report.to_json())["notes"][0]
    with pytest.warns(UserWarning, match=UNSTATED):
        audit(path, IMAGES, groups=["brightness"], metrics=[])
    result = run("audit", path, "--out", tmp_path / "out", *QUICK)
    assert UNSTATED in result.stderr
    assert UNSTATED not in result.stdout
    given = run("audit", path, "--out", tmp_path / "out", "--mean", "0.5", "--std", "0.25", *QUICK)
    assert given.exit_code == 0, given.output
    assert UNSTATED not in given.output
    written = json.loads((tmp_path / "out" / "audit.json").read_text())["settings"]
    assert written["preprocessing"]["from"] == "caller"
    assert written["preprocessing"]["mean"] == [0.5]


def test_the_preprocessing_given_is_used(path: Path, tmp_path: Path) -> None:
    about = Preprocessing(mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 2.0), channels="BGR", included=False)
    found = look(classifier(path), preprocessing=about)
    mean, std = (torch.tensor(v)[:, None, None] for v in (about.mean, about.std))
    expected = OnnxModel(path)((IMAGES.flip(1) - mean) / std)
    assert np.allclose(found.candidate.outputs, expected.numpy(), atol=1e-5)
    result = run("audit", path, "--out", tmp_path / "out", "--quantize", "static", "--bgr",
                 "--mean", "0.1,0.2,0.3", "--std", "0.5,0.5,2", *QUICK)  # fmt: skip
    assert "Traceback" not in result.output
    report = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert report["parity"]["max_relative"] < 0.1  # calibrated on what the graph is given
    assert report["settings"]["preprocessing"]["channels"] == "BGR"
    exported = run("export", "--model", "cnn", "--out", tmp_path / "cnn.onnx")
    assert exported.exit_code == 0
    with pytest.raises(ValueError, match="says itself how its images are prepared"):
        look(tmp_path / "cnn.onnx", "builtin", preprocessing=about, limit=2)


def test_answers_that_hardly_differ_are_noticed(path: Path) -> None:
    dark = look(classifier(path), IMAGES * 1e-4)
    assert any("hardly differ from image to image" in note for note in dark.notes)
    rng = np.random.default_rng(0)
    assert constant_answers("m", rng.normal(size=(20, 5))) is None
    assert constant_answers("m", np.zeros((7, 5))) is None  # too few to tell
    same = np.tile([5.0, 0, 0], (20, 1)) + rng.normal(size=(20, 3))
    assert "class 0 comes first for 100 % of 20" in str(constant_answers("m", same))
    tiny = rng.normal(size=(20, 3)) * 1e-3
    assert "hardly differ" in str(constant_answers("m", tiny))
    signs = np.tile([[1], [-1]], (10, 1))
    likely = np.full((20, 2), 0.5) + 0.4 * np.array([[1, -1]]) * signs
    assert constant_answers("m", likely) is None
    almost = np.full((20, 2), 0.5) + 0.004 * np.array([[1, -1]]) * signs
    assert "0.004 from their mean" in str(constant_answers("m", almost))


def picture(file: Path, height: int, width: int, colour: str = "red") -> None:
    Image.new("RGB", (width, height), colour).save(file)


def test_images_for_one_channel_are_grey(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, colour in enumerate(("red", "lime", "blue", "white")):
        picture(folder / f"{i}.png", 16, 16, colour)
    grey = read_images(folder, Wanted(channels=1)).images
    assert grey.shape == (4, 1, 16, 16)
    assert grey[:, 0, 0, 0] == pytest.approx(torch.tensor([0.299, 0.587, 0.114, 1]), abs=0.003)
    colours = read_images(folder, Wanted()).images
    assert colours.shape == (4, 3, 16, 16)
    builtin = read_images("builtin", Wanted((16, 16), channels=1), 4).images
    assert builtin.shape == (4, 1, 16, 16)
    report = look(classifier(path, channels=1), folder)
    assert report.settings["channels"] == 1
    assert np.allclose(report.candidate.outputs, OnnxModel(path)(grey).numpy())
    render_page(report)
    assert run("audit", path, "--out", tmp_path / "out", *QUICK).exit_code == 0
    with pytest.raises(OnnxModelError, match="2 channels; got 3"):
        look(classifier(path, channels=2), folder)


def test_images_of_different_sizes_are_brought_to_one(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, (height, width) in enumerate([(40, 24), (20, 64), (32, 32)]):
        picture(folder / f"{i}.png", height, width)
    tiny = folder / "tiny.png"  # tells its size, but cannot be decoded
    picture(tiny, 2, 2)
    tiny.write_bytes(tiny.read_bytes()[:45])
    options = ["--images", folder, "--out", tmp_path / "out", "--max-unreadable", "0.5", *QUICK]
    result = run("audit", classifier(path, side="any"), *options)
    assert result.exit_code == 0, result.output
    note = "3 different sizes and the file takes any: all were scaled and cropped to 20x24 pixels"
    assert note in words(result.stderr)
    assert "--size" in result.stderr
    report = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert report["settings"]["size"] == [20, 24]
    assert any(note in text for text in report["notes"])
    said = run("audit", path, "--size", "16", *options)
    assert said.exit_code == 0, said.output
    assert "different sizes" not in said.output
    fixed = run("audit", classifier(path, side=16), *options)
    assert fixed.exit_code == 0, fixed.output
    assert "different sizes" not in fixed.output


def test_images_of_one_size_keep_it_without_a_word(tmp_path: Path) -> None:
    for i in range(2):
        picture(tmp_path / f"{i}.png", 12, 20)
    found = read_images(tmp_path)
    assert found.images.shape == (2, 3, 12, 20)
    assert found.notes == []


def test_images_that_do_not_fit_are_refused_before_they_are_read(tmp_path: Path) -> None:
    picture(tmp_path / "0.png", 64, 64)
    (tmp_path / "1.png").write_bytes(b"never read")
    with pytest.raises(ValueError, match=r"2 images of 64x64 pixels .*more than the 9\.54e-07 GiB"):
        read_images(tmp_path, Wanted(memory=1024), max_unreadable=1)
