"""``captum-lie export`` and ``captum-lie audit`` as a user runs them."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("onnxruntime")

from captum_lie import examples
from tests.command_line import refused, run

README = Path(__file__).parents[2] / "README.md"
QUICK = ["--groups", "rotation", "--samples", "2", "--limit", "12"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "cnn.onnx"
    result = run("export", "--model", "cnn", "--out", path)
    assert result.exit_code == 0, result.output
    return path


def test_exit_code_0_and_all_files(exported: Path, tmp_path: Path) -> None:
    result = run("audit", exported, "--reference", "cnn", "--out", tmp_path / "a", *QUICK)
    assert result.exit_code == 0, result.output
    assert "Passed" in result.output
    names = {path.name for path in (tmp_path / "a").iterdir()}
    assert names == {"audit.html", "audit.json", "audit.csv", "junit.xml"}
    again = run("audit", exported, "--reference", tmp_path / "a" / "audit.json",
                "--out", tmp_path / "b", *QUICK)  # fmt: skip
    assert again.exit_code == 0, again.output


def test_exit_code_1_where_a_threshold_is_exceeded(exported: Path, tmp_path: Path) -> None:
    result = run("audit", exported, "--reference", "cnn_blur", "--out", tmp_path, *QUICK)
    assert result.exit_code == 1, result.output
    assert "parity.max_relative" in result.output
    assert not json.loads((tmp_path / "audit.json").read_text())["passed"]


def test_thresholds_from_file_and_flag(exported: Path, tmp_path: Path) -> None:
    file = tmp_path / "limits.toml"
    file.write_text("[value]\nconsistency = 0.0\neq_t = 0.0\n")
    common = ["audit", exported, "--thresholds", file, "--out", tmp_path / "out", *QUICK]
    assert run(*common).exit_code == 1
    relaxed = ["--threshold", "value.eq_t=1", "--threshold", "value.consistency=1"]
    assert run(*common, *relaxed).exit_code == 0


@pytest.mark.parametrize("mode", ["static", "dynamic"])
def test_quantize_makes_and_audits_the_variant(exported: Path, tmp_path: Path, mode: str) -> None:
    command = ["audit", exported, "--quantize", mode, "--out", tmp_path, "--json", *QUICK]
    result = run(*command)
    report = json.loads(result.stdout)
    failed = {c["name"] for c in report["checks"] if c["status"] == "fail"}
    assert result.exit_code == (1 if failed else 0), result.output
    assert "parity.max_relative" not in failed
    assert report["identity"]["quantisation"].startswith(mode)
    assert report["reference_identity"]["quantisation"] == "none"
    assert report["settings"]["thresholds"]["parity.max_relative"] == 0.1
    assert (tmp_path / f"cnn.int8-{mode}.onnx").is_file()
    strict = run(*command, "--metrics", "eq_t", "--threshold", "parity.max_relative=0")
    assert strict.exit_code == 1  # int8 never gives the very same scores


def test_a_folder_of_images_and_unreadable_ones(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, image in enumerate(examples.load_images(12)[0]):
        pixels = (image.permute(1, 2, 0) * 255).round().byte().numpy()
        Image.fromarray(pixels).resize((48, 40)).save(folder / f"{i:02}.png")
    (folder / "broken.png").write_bytes(b"\x89PNG but no more")
    result = run("audit", exported, "--images", folder, "--out", tmp_path / "out", *QUICK[:4])
    assert result.exit_code == 0, result.output
    assert "broken.png" in result.output
    report = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert list(report["skipped_images"]) == ["broken.png"]
    assert report["settings"]["size"] == [32, 32]
    assert "could not be read" in refused(
        "audit", exported, "--images", folder, "--max-unreadable", 0, "--out", tmp_path / "none"
    )
    assert not (tmp_path / "none").exists()


def test_what_cannot_be_used_is_refused(exported: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "no model file" in refused("audit", tmp_path / "none.onnx", "--out", out)
    assert "no folder" in refused("audit", exported, "--images", tmp_path / "x", "--out", out)
    (tmp_path / "empty").mkdir()
    assert "No image files" in refused(
        "audit", exported, "--images", tmp_path / "empty", "--out", out
    )
    assert "speed" in refused("audit", exported, "--metrics", "speed", "--out", out)
    assert "spin" in refused("audit", exported, "--groups", "spin", "--out", out)
    assert "no threshold" in refused("audit", exported, "--threshold", "a=1", "--out", out)
    assert "nosuchmodel" in refused("audit", exported, "--reference", "nosuchmodel", "--out", out)
    assert "input size" in refused("export", "--model", f"{_factory(tmp_path)}:build")
    assert not out.exists()


@pytest.mark.slow
def test_the_readmes_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = README.read_text(encoding="utf-8")
    section = text[text.index("### Audit a deployment") :]
    block = re.search(r"```console\n(.*?)```", section, flags=re.S)
    assert block is not None
    commands = [shlex.split(line) for line in block.group(1).splitlines()]
    assert [c[0] for c in commands] == ["captum-lie"] * 4
    for command in commands:
        result = run(*command[1:])
        assert result.exit_code == 0, (command, result.output)


def _factory(folder: Path) -> Path:
    file = folder / "mymodel.py"
    file.write_text("import torch\ndef build():\n    return torch.nn.Flatten()\n")
    return file


def test_a_missing_extra_is_named(tmp_path: Path) -> None:
    """In a process of its own, where onnx cannot be imported."""
    script = (
        "import sys\n"
        "sys.modules |= dict.fromkeys(('onnx', 'onnxruntime', 'onnxscript'))\n"
        "from typer.testing import CliRunner\n"
        "from captum_lie.cli.application import app\n"
        "for arguments in (['audit', 'cnn.onnx'], ['export', '--model', 'cnn'], ['audit', '-h']):\n"
        "    result = CliRunner().invoke(app, arguments)\n"
        "    print(result.exit_code, ' '.join(result.output.split()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    audited, exported, helped = done.stdout.splitlines()
    remedy = r"2 Error: This command needs onnx\w*: pip install 'captum-lie\[onnx\]'"
    assert re.fullmatch(remedy, audited)
    assert re.fullmatch(remedy, exported)
    assert helped.startswith("0 ")


def test_the_adapter_says_that_it_is_typed() -> None:
    assert (resources.files("captum_lie_onnx") / "py.typed").is_file()
