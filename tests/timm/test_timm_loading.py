"""timm models through the adapter, with local checkpoints in place of the hub."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

timm = pytest.importorskip("timm")

from captum_lie import LayerwiseEquivarianceError
from captum_lie.cli.application import app
from captum_lie.errors import UserError
from captum_lie.layouts import inference
from captum_lie.models import load_model
from captum_lie_timm import load
from captum_lie_timm.loading import prepared


def test_preprocessing_belongs_to_the_model() -> None:
    model = load("resnet10t", pretrained=False)
    config = timm.data.resolve_model_data_config(model.model)
    assert model.input_size == config["input_size"][1:]
    x = torch.rand(1, 3, 64, 64)
    mean, std = (torch.tensor(config[k])[:, None, None] for k in ("mean", "std"))
    with torch.no_grad():
        torch.testing.assert_close(model(x), model.model((x - mean) / std))
    assert not model.training


@pytest.mark.parametrize(
    "name", ["tf_efficientnet_lite2", "convnext_atto", "mobilenetv4_conv_small"]
)
@pytest.mark.parametrize("size", [(300, 451), (333, 270), (90, 90)])
def test_images_are_prepared_as_by_timm(name: str, size: tuple[int, int]) -> None:
    config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    model = torch.nn.Flatten()
    model.pretrained_cfg = config
    view = prepared(model, "").view
    assert view is not None
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    image = Image.fromarray(pixels)
    expected = timm.data.create_transform(**config, normalize=False)(image) / 255
    assert torch.equal(view(image), expected)


def test_a_local_checkpoint_is_loaded(tmp_path: Path) -> None:
    torch.manual_seed(1)
    source = timm.create_model("resnet10t", pretrained=False)
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    model = load("resnet10t", checkpoint=tmp_path / "weights.pth")
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model.model(x), source.eval()(x))


def test_errors_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LookupError, match="has no model 'resnet9000'"):
        load("resnet9000")
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        load("resnet10t", checkpoint=tmp_path / "nothing.pth")
    (tmp_path / "bad.pth").write_bytes(b"not weights")
    with pytest.raises(RuntimeError, match=r"Could not load resnet10t with the checkpoint"):
        load("resnet10t", checkpoint=tmp_path / "bad.pth")
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"other.pth: Error.* for ResNet: (Miss|Unexp).{,200} Give"):
        load("resnet10t", checkpoint=tmp_path / "other.pth")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))

    def unreachable(*args: object, **kwargs: object) -> None:
        raise OSError("the hub is unreachable")

    monkeypatch.setattr("timm.create_model", unreachable)
    with pytest.raises(RuntimeError, match=r"hub is unreachable.*pretrained=False"):
        load("resnet10t")


def test_the_library_finds_timm_models_by_name() -> None:
    for name in ("resnet10t", "timm:resnet10t"):
        assert type(load_model(name, pretrained=False).model).__name__ == "ResNet"
    with pytest.raises(ValueError, match=r"timm: timm .* has no model 'resnet9000'"):
        load_model("resnet9000")


def test_names_of_repositories_reach_timm_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def create(name: str, **_options: object) -> None:
        asked.append(name)
        raise OSError("offline")

    monkeypatch.setattr("timm.create_model", create)
    for name in ("hf-hub:timm/resnet10t@main", "timm:hf-hub:timm/resnet10t", "timm:resnet10t"):
        with pytest.raises(RuntimeError, match="offline"):
            load_model(name)
    assert asked == ["hf-hub:timm/resnet10t@main", "hf-hub:timm/resnet10t", "resnet10t"]
    with pytest.raises(ValueError, match="has no source 'ftp:x'"):
        load_model("ftp:x")


def test_untrained_twins_are_the_same_in_every_run() -> None:
    torch.manual_seed(5)
    first = load_model("resnet10t", pretrained=False).state_dict()
    state = torch.get_rng_state()
    second = load_model("resnet10t", pretrained=False).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_measure_two_timm_models_with_checkpoints_of_their_own(tmp_path: Path) -> None:
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = timm.create_model("resnet10t", pretrained=False)
        torch.save(model.state_dict(), tmp_path / f"{seed}.pth")
    arguments = ["measure", "--model", f"resnet10t@{tmp_path / '1.pth'}", "--model",
                 f"other=timm:resnet10t@{tmp_path / '2.pth'}", "--limit", "2", "--size", "64",
                 "--groups", "rotation", "--no-relative", "--no-control", "--pictures", "0",
                 "--out", str(tmp_path / "out")]  # fmt: skip
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    content = json.loads((tmp_path / "out" / "lee.json").read_text())
    first, second = content["lee"]
    assert (first["model"], second["model"]) == ("resnet10t@1.pth", "other")
    assert first["lee"] != second["lee"]
    assert content["models"]["other"]["what"].endswith("checkpoint 2.pth")


def test_measure_a_timm_model(tmp_path: Path) -> None:
    torch.manual_seed(1)
    weights = tmp_path / "weights.pth"
    torch.save(timm.create_model("resnet10t", pretrained=False).state_dict(), weights)
    arguments = ["measure", "--model", "resnet10t", "--checkpoint", str(weights), "--limit", "2",
                 "--size", "64", "--groups", "rotation", "--no-relative", "--pictures", "1",
                 "--out", str(tmp_path / "out")]  # fmt: skip
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "resnet10t (untrained)" in (tmp_path / "out" / "lee.csv").read_text()


@pytest.mark.parametrize(
    "lost",
    [
        "timm.models.swin_transformer.SwinTransformerBlock",  # a class within a rule
        "timm.layers.patch_embed.PatchEmbed",  # one that a rule belongs to
        "timm.models.mvitv2",  # a whole module
        "timm.models.inception_v3",
    ],
)
def test_a_class_that_timm_lacks_costs_its_rule_alone(
    lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another version of timm may have it: renamed, or in another module."""
    forget("captum_lie_timm", monkeypatch)
    monkeypatch.setattr(timm, "__version__", "1.0.31")  # older ones may lack others besides
    for rules in ("_INPUT_RULES", "_OUTPUT_RULES", "_INSIDE_RULES"):
        known = getattr(inference, rules)
        ours = {cls: rule for cls, rule in known.items() if not cls.__module__.startswith("timm")}
        assert len(ours) < len(known)
        monkeypatch.setattr(inference, rules, ours)
    module, _, name = lost.rpartition(".")
    if name[0].isupper():
        monkeypatch.delattr(sys.modules[module], name)
    else:
        monkeypatch.setitem(sys.modules, lost, None)  # as if it were not there
    with pytest.warns(UserWarning, match="captum_lie_timm has a layout rule") as caught:
        importlib.import_module("captum_lie_timm")
    told = f"has no {lost.removeprefix('timm.')}, for which"
    assert sum(told in str(w.message) for w in caught) == 1
    model = load_model("test_vit", pretrained=False)
    result = LayerwiseEquivarianceError(model).attribute(torch.rand(1, 3, 160, 160))
    assert result.resolved_share == 1
    kept = {cls.__name__ for cls in inference._INSIDE_RULES}
    assert {"NestLevel", "TNT", "WindowAttention"} <= kept


def test_what_was_written_after_this_timm_is_not_missed(
    monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    forget("captum_lie_timm", monkeypatch)
    monkeypatch.setattr(timm, "__version__", "1.0.16")
    monkeypatch.delattr("timm.models.tiny_vit.TinyVitBlock")
    for rules in ("_INPUT_RULES", "_OUTPUT_RULES", "_INSIDE_RULES"):
        monkeypatch.setattr(inference, rules, dict(getattr(inference, rules)))
    importlib.import_module("captum_lie_timm")
    assert not [w for w in recwarn if "layout rule" in str(w.message)]


def forget(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a package be imported afresh, until the end of a test."""
    for name in list(sys.modules):
        if name.partition(".")[0] == package:
            monkeypatch.delitem(sys.modules, name)


def failing(error: Exception) -> Any:
    """A finder of modules for which timm is not there, or broken."""

    class Finder:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name == "timm":
                raise error

    return Finder()


@pytest.mark.parametrize(
    ("error", "told", "untold"),
    [
        (ModuleNotFoundError("No module named 'timm'", name="timm"),
         "timm is not installed: pip install 'captum-lie[timm]'", "bug"),
        (ModuleNotFoundError("No module named 'torchvision'", name="torchvision"),
         "fails to import (ModuleNotFoundError: No module named 'torchvision')", "not installed"),
        (ImportError("cannot import name 'is_model' from 'timm'", name="timm"),
         "fails to import (ImportError: cannot import name 'is_model'", "not installed"),
        (RuntimeError("operator torchvision::nms does not exist"),
         "fails to import (RuntimeError: operator torchvision::nms", "not installed"),
    ],
)  # fmt: skip
def test_not_installed_is_told_from_fails_to_import(
    error: Exception, told: str, untold: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget("timm", monkeypatch)
    forget("captum_lie_timm", monkeypatch)
    monkeypatch.setattr(sys, "meta_path", [failing(error), *sys.meta_path])
    arguments = ["measure", "--model", "resnet10t", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2, result.output
    message = " ".join(result.stderr.split())
    assert "No model 'resnet10t'. Embedded: cnn" in message
    assert told in message
    assert untold not in message
    assert "Traceback" not in message
    found = CliRunner().invoke(app, ["--debug", *arguments])
    assert f"{type(error).__name__}: {error}" in found.stderr.partition("The above exception")[0]
    assert load_model("cnn") is not None
