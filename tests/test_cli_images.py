"""The command line on models and images of any kind: sizes, channels, labels, names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from captum_lie import LocalEquivarianceError, examples
from captum_lie.cli.application import app
from captum_lie.images import View, read_image
from captum_lie.studies.specs import ModelSpec, parse_spec, parse_specs

FACTORY = """
import torch
from torch import nn

def build(seed, channels=3, size=None, outputs=4):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(channels, 6, 3, stride=2), nn.Tanh(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, outputs))
    if size:
        model.input_size = size
    return model

def small(): return build(0, size=(16, 16))
def middle(): return build(1, size=(20, 24))
def large(): return build(2, size=(80, 80))
def grey(): return build(3, channels=1)
def five(): return build(4, channels=5)

class Photos:
    def __len__(self): return 3
    def __getitem__(self, i): return torch.full((1, 16, 16), i / 4), i
def photos(): return Photos()
"""


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def measured(out: Path, *arguments: object) -> dict[str, Any]:
    """What ``lee.json`` says after a run that must succeed."""
    result = run("measure", "--groups", "rotation", "--out", out, *arguments)
    assert result.exit_code == 0, result.output
    content: dict[str, Any] = json.loads((out / "lee.json").read_text())
    return content


@pytest.fixture
def factory(tmp_path: Path) -> Path:
    file = tmp_path / "nets.py"
    file.write_text(FACTORY)
    return file


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two photographs of two sizes."""
    folder = tmp_path / "photos"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    Image.fromarray(noise).save(folder / "wide.png")
    Image.fromarray(noise[:, :30]).save(folder / "tall.png")
    return folder


def test_three_models_of_three_sizes_in_one_call(
    factory: Path, photos: Path, tmp_path: Path
) -> None:
    """Each sees the images at its own size, prepared as it says, and its numbers are those."""
    names = ("small", "middle", "large")
    specs = [a for name in names for a in ("--model", f"{factory}:{name}")]
    out = tmp_path / "out"
    content = measured(out, *specs, "--images", photos, "--pictures", "1")
    seen = {name: model["input"] for name, model in content["models"].items()}
    assert seen == {"nets.py:small": "3x16x16", "nets.py:middle": "3x20x24",
                    "nets.py:large": "3x80x80"}  # fmt: skip
    assert content["models"]["nets.py:middle"]["prepared"] == "20x24, the middle of 20x24 (bicubic)"
    page = (out / "report.html").read_text()
    assert "3x20x24" in page
    assert "standard deviation\n2 pixels" in page  # of the largest alone: 80 / 40
    namespace: dict[str, Any] = {}
    exec(FACTORY, namespace)
    for row, name, size in zip(content["lee"], names, ((16, 16), (20, 24), (80, 80)), strict=True):
        x = torch.stack([read_image(photos / f"{p}.png", size) for p in ("tall", "wide")])
        expected = LocalEquivarianceError(namespace[name]()).score(x, "rotation").mean().item()
        assert row["model"] == f"nets.py:{name}"
        assert row["lee"] == pytest.approx(expected, rel=1e-4)
    alike = measured(out, *specs, "--images", photos, "--size", "16", "--raw-maps")
    assert {m["input"] for m in alike["models"].values()} == {"3x16x16"}
    assert "standard deviation" not in (out / "report.html").read_text()
    layers = run("layers", *specs, "--images", photos, "--out", tmp_path / "layers")
    assert layers.exit_code == 0, layers.output
    assert (tmp_path / "layers" / "maps_translation_x_nets.py_large_0.png").is_file()


def test_one_channel_models_see_grey_images(factory: Path, photos: Path, tmp_path: Path) -> None:
    content = measured(tmp_path / "out", "--model", f"{factory}:grey", "--model",
                       f"colour={factory}:small", "--images", photos, "--size", "24")  # fmt: skip
    assert content["models"]["nets.py:grey"]["input"] == "1x24x24"
    assert content["models"]["colour"]["input"] == "3x24x24"
    x = torch.stack([read_image(photos / f"{p}.png", (24, 24), 1) for p in ("tall", "wide")])
    namespace: dict[str, Any] = {}
    exec(FACTORY, namespace)
    expected = LocalEquivarianceError(namespace["grey"]()).score(x, "rotation").mean().item()
    assert content["lee"][0]["lee"] == pytest.approx(expected, rel=1e-4)
    wrong = run("measure", "--model", f"{factory}:grey", "--channels", "3", "--size", "24",
                "--images", photos, "--out", tmp_path)  # fmt: skip
    assert wrong.exit_code == 2
    assert "(--channels)" in wrong.output


def test_more_channels_come_as_pages_and_stacks(factory: Path, tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(0, 256, (2, 5, 16, 16), np.uint8)
    np.savez(tmp_path / "five.npz", images=values)
    (tmp_path / "pages").mkdir()
    for i, image in enumerate(values):
        first, *rest = map(Image.fromarray, image)
        first.save(tmp_path / "pages" / f"{i}.tif", save_all=True, append_images=rest)
    found = [
        measured(tmp_path / "out", "--model", f"{factory}:five", "--images", tmp_path / images)
        for images in ("five.npz", "pages")
    ]
    assert found[0]["models"]["nets.py:five"]["input"] == "5x16x16"
    assert found[0]["lee"] == found[1]["lee"]


def test_a_labelled_folder_gives_accuracy(tmp_path: Path) -> None:
    """One folder a class, by the names of the model's classes; one image is put in a wrong one."""
    images, labels = examples.load_images(8)
    wrong = 3
    for i, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        name = examples.CLASSES[(label + 1) % 8 if i == wrong else label]
        folder = tmp_path / "classes" / name.upper()
        folder.mkdir(parents=True, exist_ok=True)
        pixels = (image.permute(1, 2, 0) * 255).round().byte().numpy()
        Image.fromarray(pixels).save(folder / f"{i}.png")
    out = tmp_path / "out"
    content = measured(out, "--model", "vit", "--images", tmp_path / "classes", "--no-control",
                       "--metrics", "consistency", "--samples", "2")  # fmt: skip
    said = content["models"]["vit"]
    right = (examples.load_model("vit")(images).argmax(1) == labels).sum().item()
    assert said["labels"] == "matched by name"
    assert said["accuracy"] == (right - 1) / 8
    consistency = pd.read_csv(out / "metrics.csv").set_index("variant")
    assert consistency.loc["unshifted_correct", "n"] == right - 1
    assert consistency.loc["unshifted", "n"] == 8
    (tmp_path / "classes" / "BRICK").rename(tmp_path / "classes" / "unicorn")
    result = run("measure", "--model", "cnn", "--images", tmp_path / "classes", "--groups",
                 "rotation", "--no-control", "--out", out)  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "no class of the model is called 'unicorn'" in result.output
    assert "Accuracy" not in result.output


def test_a_stack_with_labels(tmp_path: Path) -> None:
    images, labels = examples.load_images(6)
    np.savez(tmp_path / "stack.npz", images=images.numpy(), labels=labels.numpy())
    out = tmp_path / "out"
    content = measured(out, "--model", "cnn", "--images", tmp_path / "stack.npz", "--no-control")
    expected = LocalEquivarianceError(examples.load_model("cnn")).score(images, "rotation")
    assert content["lee"][0]["lee"] == pytest.approx(expected.mean().item(), rel=1e-5)
    assert content["models"]["cnn"]["labels"] == "numbers of the model's outputs"
    right = (examples.load_model("cnn")(images).argmax(1) == labels).float().mean().item()
    assert content["models"]["cnn"]["accuracy"] == pytest.approx(right)


def test_a_dataset_by_its_function(factory: Path, tmp_path: Path) -> None:
    content = measured(
        tmp_path / "out", "--model", f"{factory}:small", "--images", f"{factory}:photos"
    )
    assert content["models"]["nets.py:small"]["input"] == "3x16x16"  # grey shown as colours
    assert content["lee"][0]["n"] == 3


def test_models_are_called_by_their_labels(factory: Path, photos: Path, tmp_path: Path) -> None:
    content = measured(tmp_path / "out", "--model", f"mine={factory}:small", "--model", "c n=cnn",
                       "--images", photos)  # fmt: skip
    assert [row["model"] for row in content["lee"]] == ["mine", "c n", "c n (untrained)"]
    assert content["models"]["mine"]["what"] == f"{factory}:small"
    assert "embedded in captum-lie, random" in content["models"]["c n (untrained)"]["what"]
    twice = run("measure", "--model", f"{factory}:small", "--model", f"{factory}:small")
    assert twice.exit_code == 2
    assert "Two models are called 'nets.py:small'" in " ".join(twice.output.split())


def test_specs() -> None:
    assert parse_spec("a/b=c/net.py:build") == ModelSpec("net.py:build", "a/b=c/net.py:build")
    assert parse_spec("resnet18@runs/w.pth") == ModelSpec(
        "resnet18@w.pth", "resnet18", Path("runs/w.pth")
    )
    revision = "hf-hub:timm/resnet18@main"
    assert parse_spec(revision) == ModelSpec(revision, revision)
    assert parse_specs(["cnn"], Path("w.pth"))[0].checkpoint == Path("w.pth")
    for bad in ("=cnn", "a=", "a=@w", "cnn@", " =cnn", "x (untrained)=cnn"):
        with pytest.raises(ValueError, match="--model"):
            parse_spec(bad)
    with pytest.raises(ValueError, match="write --model a@FILE"):
        parse_specs(["a", "b"], Path("w.pth"))


def test_the_view_of_an_embedded_model_is_what_it_was_trained_on() -> None:
    from captum_lie.models import load_model

    assert getattr(load_model("mixer"), "view", None) == View((32, 32), channels=3)
