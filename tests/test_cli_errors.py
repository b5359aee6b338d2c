"""Errors on the command line: what a user can mend is one line and exit code 2, a bug a traceback.

And the options that reach the measurement itself.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import Result

from captum_lie import LocalEquivarianceError, examples
from captum_lie.cli.application import main
from captum_lie.errors import UserError
from captum_lie.models import find_factory
from tests.command_line import refused, run

FACTORY = """
import sys
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, end=lambda scores: scores, most=None):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(3, 4, 3, stride=2), nn.Linear(4, 3)
        self.end, self.most = end, most
    def forward(self, x):
        assert self.most is None or len(x) <= self.most, f"{len(x)} images at once"
        return self.end(self.head(self.conv(x).sigmoid().mean((2, 3))))

def plain(): return Net()
def raises(): raise KeyError("weights")
def leaves(): sys.exit("no weights here")
def wants(more): return Net()
def fails(): return Net(lambda scores: {}["logits"])
def nan(): return Net(lambda scores: scores * float("nan"))
def several(): return Net(lambda scores: {"logits": scores})
def classes(): return Net(lambda scores: scores.argmax(1))
def one_score(): return Net(lambda scores: scores[:, 0])
def one_image(): return Net(most=1)
def two_images(): return Net(most=2)
def huge(): return Net(lambda scores: torch.empty(10**15))
builtin = dict
"""


@pytest.fixture
def factory(tmp_path: Path) -> Path:
    file = tmp_path / "mymodel.py"
    file.write_text(FACTORY)
    return file


def measured(model: object, out: Path, *options: object) -> Result:
    return run("measure", "--model", model, "--groups", "rotation", "--limit", 4, "--pictures", 1,
               "--no-control", "--out", out, *options)  # fmt: skip


def one_line(result: Result) -> str:
    """The single line that a user error is, without what comes before it."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    *_, line = result.stderr.replace("\r", "\n").strip().split("\n")
    assert line.startswith("Error: ")
    assert result.stderr.count("Error: ") == 1 + line.count("Error: ", 1)
    assert "Traceback" not in result.stderr
    return line


def break_measuring(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("captum_lie.cli.measure.carry_out", broken)


BUGS = [RuntimeError, TypeError, ValueError, AssertionError, LookupError, KeyError, AttributeError]


@pytest.mark.parametrize("bug", BUGS)
@pytest.mark.parametrize("debug", [False, True])
def test_a_bug_is_no_user_error(
    bug: type[Exception], debug: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_measuring(bug("ours"), monkeypatch)
    flags = ["--debug"] if debug else []
    result = run(*flags, "measure", "--model", "cnn", "--limit", 2, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert type(result.exception) is bug  # which Python shows with its traceback
    assert "Error" not in result.output


def test_a_bug_leaves_the_program_with_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Python shows what leaves a program by its hook, which the console script's library sets."""
    break_measuring(RuntimeError("ours"), monkeypatch)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    arguments = ["measure", "--model", "cnn", "--limit", "2", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["captum-lie", *arguments])
    with pytest.raises(RuntimeError, match="ours") as info:
        main()
    capsys.readouterr()
    sys.excepthook(info.type, info.value, info.tb)
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback (most recent call last)")
    assert "in broken" in shown
    assert shown.strip().endswith("RuntimeError: ours")


@pytest.mark.parametrize("error", [UserError("mend this"), OSError("no space left")])
def test_a_user_error_is_one_line_and_with_debug_a_traceback_too(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_measuring(error, monkeypatch)
    arguments = ["measure", "--model", "cnn", "--limit", 2, "--out", tmp_path / "out"]
    result = run(*arguments)
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"Error: {error}\n")
    result = run("--debug", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Traceback (most recent call last)")
    assert "in broken" in result.stderr
    assert result.stderr.endswith(f"\nError: {error}\n")
    assert run(*arguments).stderr == f"Error: {error}\n"  # debugging does not last


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate"),
    ],
)
def test_out_of_memory_is_one_line(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_measuring(error, monkeypatch)
    result = run("measure", "--model", "cnn", "--limit", 2, "--out", tmp_path / "out")
    assert one_line(result).startswith("Error: out of memory. Lower --batch-size, --internal-batch")


@pytest.mark.parametrize("command", ["measure", "layers"])
@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("raises", "mymodel.py:raises gives no model: KeyError: 'weights'"),
        ("leaves", "gives no model: SystemExit: no weights here"),
        ("wants", "gives no model: TypeError: wants() missing 1 required positional argument"),
        ("builtin", "must return a torch.nn.Module; got dict"),
        ("fails", "fails on images of shape [2, 3, 32, 32] (KeyError: 'logits')"),
        ("one_image", "(AssertionError: 2 images at once). Does it take this size (--size), these "
         "channels (--channels) and that many images at a time (--batch-size)?"),
        ("nan", "mymodel.py:nan returns NaN or infinite values on the first images"),
        ("several", "must return one Tensor; got dict"),
        ("classes", "must return floating point numbers to have a derivative; got torch.int64"),
        ("one_score", "over at least two classes; the output has shape (2,)"),
        ("huge", "out of memory"),
    ],
)  # fmt: skip
def test_models_that_cannot_be_measured(
    command: str, model: str, message: str, factory: Path, tmp_path: Path
) -> None:
    result = run(command, "--model", f"{factory}:{model}", "--limit", 2, "--out", tmp_path / "out")
    assert message in one_line(result)


def test_a_model_of_single_images_is_measured_one_by_one(factory: Path, tmp_path: Path) -> None:
    result = measured(f"{factory}:one_image", tmp_path, "--batch-size", 1, "--norm", "l1")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import sys\nsys.exit('bye')", "failed to run: SystemExit: bye"),
        ("import no_such_module", "failed to run: ModuleNotFoundError: No module named"),
        ("def (", "failed to run: SyntaxError"),
    ],
)
def test_model_files_that_do_not_run(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text(text)
    assert message in one_line(measured(f"{file}:build", tmp_path / "out"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--mean", "nan"], "Means must be finite; got (nan,)"),
        (["--std", "inf"], "must be positive and finite; got (inf,)"),
        (["--std", "1e-50"], "must be positive and finite; got (1e-50,)"),  # 0 in single precision
        (["--std", "0.2,nan,0.2"], "must be positive and finite"),
        (["--mean", "0.5,0.5,0.5", "--std", "0.2,0.2"], "one for all; got 3 and 2"),
        (["--mean", "0.5,0.5"], "cnn fails on images of shape [2, 3, 32, 32] (RuntimeError: The"),
        (["--size", "100000"], "--size goes up to 16384 pixels a side; got '100000'"),
        (["--device", "meta"], "Device 'meta' cannot be used: Cannot copy out of meta tensor"),
        (["--device", "xla"], "from the 'XLA' backend"),
        (["--device", "gpu"], "Device 'gpu' cannot be used"),
    ],
)
def test_options_that_cannot_be_used(options: list[str], message: str, tmp_path: Path) -> None:
    line = one_line(measured("cnn", tmp_path / "out", *options))
    assert message in line
    assert len(line) < 300
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["measure", "layers"])
def test_a_folder_of_broken_images(command: str, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for i, content in enumerate((b"", b"no image", b"\x89PNG\r\n\x1a\n")):
        (photos / f"{i}.png").write_bytes(content)
    (photos / "folder.png").mkdir()
    message = refused(command, "--model", "cnn", "--images", photos, "--out", tmp_path / "out")
    assert "Error: None of the 4 image files could be read." in message
    assert message.count("Note: Skipped") == 4


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    assert "Device 'cuda' cannot be used" in one_line(
        measured("cnn", tmp_path / "out", "--device", "cuda")
    )


@pytest.mark.parametrize("file", ["examples.json", "images.png"])
def test_damaged_example_files(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = examples.data.read_shipped
    monkeypatch.setattr(
        examples.data, "read_shipped", lambda name: read(name)[: 100 if name == file else None]
    )
    line = one_line(measured("cnn", tmp_path / "out"))
    assert f"the example file {file!r} is damaged" in line
    assert "reinstall captum-lie" in line


def test_norm_device_and_internal_batch_size_reach_the_measurement(
    factory: Path, tmp_path: Path
) -> None:
    """The model refuses more than two images at a time, of batches of four."""
    model = f"{factory}:two_images"
    options = ["--norm", "l1", "--device", "cpu", "--batch-size", 4, "--json"]
    assert measured(model, tmp_path, *options).exit_code == 1
    result = measured(model, tmp_path, *options, "--internal-batch-size", 2)
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    method = LocalEquivarianceError(find_factory(f"{factory}:plain")().eval(), norm="l1")
    images, _ = examples.load_images(4)
    expected = method.score(images, ["rotation"]).mean()
    (row,) = content["lee"]
    assert row["lee"] == pytest.approx(expected.item(), rel=1e-5)
    squared = LocalEquivarianceError(method.forward_func).score(images, ["rotation"]).mean()
    assert row["lee"] != pytest.approx(squared.item(), rel=0.1)
    assert content["settings"]["norm"] == "l1"
    assert content["settings"]["device"] == "cpu"


@pytest.mark.parametrize("options", [["--norm", "l3"], ["--internal-batch-size", "0"]])
def test_options_out_of_range_are_refused(options: list[str], tmp_path: Path) -> None:
    assert f"Invalid value for '{options[0]}'" in refused(
        "measure", "--model", "cnn", "--out", tmp_path, *options
    )


def test_a_report_cannot_be_written_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    line = one_line(measured("cnn", tmp_path / "file" / "out"))
    assert "Not a directory" in line
