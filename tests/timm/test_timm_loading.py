"""timm models through the adapter, with local checkpoints in place of the hub."""

from __future__ import annotations

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
