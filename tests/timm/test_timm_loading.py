"""timm models through the adapter, with local checkpoints in place of the hub."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

timm = pytest.importorskip("timm")

from captum_lie.cli.application import app
from captum_lie.models import load_model
from captum_lie_timm import load


def test_preprocessing_belongs_to_the_model() -> None:
    model = load("resnet10t", pretrained=False)
    config = timm.data.resolve_model_data_config(model.model)
    assert model.input_size == config["input_size"][1:]
    x = torch.rand(1, 3, 64, 64)
    mean, std = (torch.tensor(config[k])[:, None, None] for k in ("mean", "std"))
    with torch.no_grad():
        torch.testing.assert_close(model(x), model.model((x - mean) / std))
    assert not model.training


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
