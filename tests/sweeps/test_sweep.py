"""Sweeps: what fails is named and stops nothing; what was interrupted goes on where it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from PIL import Image

from captum_lie.results.cell import Cell
from captum_lie.studies import Demands
from captum_lie.studies.sources import find_images
from captum_lie.studies.specs import candidates_from, parse_spec
from captum_lie.studies.sweeping.job import Job, facts_of
from captum_lie.studies.sweeping.store import Store
from tests.command_line import refused, run

FACTORIES = Path(__file__).with_name("factories.py")
FAST = ("--limit", "3", "--groups", "rotation", "--no-relative")


def factory(name: str) -> str:
    return f"{name}={FACTORIES}:{name}"


def arguments(out: Path, *models: str) -> list[str]:
    return ["sweep", "--models", ",".join(models), "--images", "test=builtin", *FAST,
            "--out", str(out)]  # fmt: skip


def started(out: Path, *models: str, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "captum_lie", *arguments(out, *models)],
        env=os.environ | environment,
        stderr=subprocess.DEVNULL,
    )


def table(out: Path) -> pd.DataFrame:
    return pd.read_csv(out / "sweep.csv")


def cells(out: Path) -> dict[str, Cell]:
    return {cell.label: cell for cell in Store(out).everything()}


def test_a_sweep_gives_what_measure_gives(tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    assert run(*arguments(out, "cnn", "vit@random"), "--control").exit_code == 0
    again = run("measure", "--model", "cnn", *FAST, "--out", tmp_path / "measure")
    assert again.exit_code == 0, again.output
    measured = pd.read_csv(tmp_path / "measure" / "lee.csv")
    swept = table(out)
    lee = swept[(swept["label"] == "cnn") & (swept["metric"] == "lee")]
    assert lee["value"].item() == measured["lee"][0]
    twin = swept[(swept["label"] == "cnn") & (swept["metric"] == "lee_untrained")]
    assert twin["value"].item() == measured["lee"][1]
    assert set(swept.loc[swept["label"] == "vit@random", "metric"]) == {
        "lee", "lee_worst", "accuracy",
    }  # fmt: skip
    models = pd.read_csv(out / "models.csv")
    assert list(models)[:6] == [
        "model", "img_size", "top1", "param_count", "crop_pct", "interpolation",
    ]  # fmt: skip
    assert models["img_size"].tolist() == [32, 32]
    assert models["kind"].tolist() == ["modern CNN", "transformer"]


@pytest.mark.parametrize(("size", "shown"), [(None, 32), ((40, 48), 48)])
def test_a_models_size_is_that_of_the_images_it_was_shown(
    size: tuple[int, int] | None, shown: int
) -> None:
    (cnn,) = candidates_from([parse_spec("cnn")])
    assert facts_of(cnn, find_images("builtin", 1), Demands(size)).img_size == shown


@pytest.mark.slow
def test_failures_are_named_and_stop_nothing(tmp_path: Path) -> None:
    bad = {
        "raises": "no such thing",
        "exits": "SystemExit: enough",
        "exhausts": "out of memory",
        "sleeps": "time limit: not done within 45 s",
        "dies": "killed by SIGKILL",
        "crashes": "killed by SIGSEGV",
    }
    models = [factory(name) for name in (*bad, "fine", "greedy")]
    result = run(*arguments(tmp_path, *models, "cnn"), "--timeout", "45", "--memory", "4")
    assert result.exit_code == 1, result.output
    known = cells(tmp_path)
    for name, cause in bad.items():
        assert known[name].status == "failed"
        assert cause in known[name].cause, name
        assert "\n" not in known[name].cause
    assert "no such thing" in known["raises"].traceback
    assert {name for name, cell in known.items() if cell.status == "ok"} == {
        "fine", "greedy", "cnn",
    }  # fmt: skip
    assert known["greedy"].batch_size == 2
    rows = table(tmp_path).groupby("label")["status"].agg(["size", "first"])
    assert (rows.loc[list(bad), "size"] == 1).all()
    fine = table(tmp_path).set_index(["label", "metric"])["value"]
    assert fine["greedy", "lee"] == pytest.approx(fine["fine", "lee"], rel=1e-5)


def test_only_what_is_missing_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = tmp_path / "notes"
    monkeypatch.setenv("COUNTED", str(notes))
    out = tmp_path / "out"
    call = arguments(out, factory("counted"), factory("raises"))

    def made() -> int:
        return len(notes.read_text().splitlines())

    assert run(*call).exit_code == 1
    assert made() == 1
    content = (out / "sweep.csv").read_bytes()
    for extra, times in (((), 1), (("--retry-failed",), 1), (("--refresh",), 2)):
        assert run(*call, *extra).exit_code == 1
        assert made() == times
        assert (out / "sweep.csv").read_bytes() == content
    assert run(*call, "--seed", "1").exit_code == 1  # other settings, other cells
    assert made() == 3


@pytest.mark.slow
def test_a_killed_sweep_goes_on_where_it_was(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    models = ["cnn", "vit", factory("counted"), "mixer"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    environment = {"COUNTED": str(notes), "COUNTED_SECONDS": "3"}
    assert started(whole, *models, **environment).wait() == 0
    notes.unlink()
    process = started(killed, *models, **environment)
    while not notes.exists():
        time.sleep(0.1)
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    stamps = {p.name: p.stat().st_mtime_ns for p in (killed / "cells").glob("*.safetensors")}
    assert len(stamps) == 2
    assert started(killed, *models, **environment).wait() == 0
    assert (killed / "sweep.csv").read_bytes() == (whole / "sweep.csv").read_bytes()
    now = {p.name: p.stat().st_mtime_ns for p in (killed / "cells").glob("*.safetensors")}
    assert len(now) == 4
    assert stamps.items() <= now.items()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_drop_the_cell_at_work(tmp_path: Path, number: signal.Signals) -> None:
    notes = tmp_path / "notes"
    process = started(
        tmp_path, "cnn", factory("counted"), COUNTED=str(notes), COUNTED_SECONDS="600"
    )
    while not notes.exists():
        time.sleep(0.1)
        assert process.poll() is None
    process.send_signal(number)
    assert process.wait(30) == 128 + number
    assert set(table(tmp_path)["label"]) == {"cnn"}
    assert list(cells(tmp_path)) == ["cnn"]


@pytest.mark.slow
def test_two_sweeps_share_a_folder_and_shards_make_the_whole(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    models = ["cnn", factory("counted"), "vit", "mixer"]
    together = [
        started(tmp_path / "two", *models, COUNTED=str(notes), COUNTED_SECONDS="2")
        for _ in range(2)
    ]
    assert [process.wait() for process in together] == [0, 0]
    assert notes.read_text() == "made\n"
    monkey = os.environ | {"COUNTED": str(notes)}
    for i in range(3):
        call = [*arguments(tmp_path / "three", *models), "--shard", f"{i}/3"]
        subprocess.run([sys.executable, "-m", "captum_lie", *call], env=monkey, check=True)
    tables = [(tmp_path / name / "sweep.csv").read_bytes() for name in ("two", "three")]
    assert tables[0] == tables[1]


def test_a_dry_run_computes_nothing(tmp_path: Path) -> None:
    result = run(*arguments(tmp_path / "new", "embedded", factory("sleeps")), "--dry-run")
    assert result.exit_code == 0, result.output
    assert "missing\tcnn\tcnn\tcnn\tmodern CNN\ttest" in result.stdout
    assert "5 cells (5 models x 1 sets of images), 5 to compute" in result.stdout
    assert not (tmp_path / "new").exists()


def test_what_cannot_be_had_is_known_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    Image.new("RGB", (8, 8)).save(photos / "good.png")
    (photos / "broken.png").write_bytes((photos / "good.png").read_bytes()[:-20])
    catalogue = SimpleNamespace(
        lists=(), expand=lambda _: None, describe=lambda _: None,
        missing=lambda name: "they are lost" if name == "zoo:lost" else None,
    )  # fmt: skip
    monkeypatch.setattr("captum_lie.studies.sweeping.listing._catalogues", lambda: [catalogue])

    def at_work(job: Job, store: Store, stop: threading.Event, *_: object) -> None:
        (lost,) = store.everything()
        assert (lost.label, lost.status, lost.cause) == ("zoo:lost", "failed", "they are lost")
        stop.set()

    monkeypatch.setattr("captum_lie.studies.sweeping.work.run", at_work)
    call = ("sweep", "--models", "cnn,zoo:lost", "--images", f"test={photos}", "--out", out)
    dry = run(*call, "--dry-run")
    assert "Would fail: zoo:lost: they are lost" in dry.stdout
    assert "test: 1 of 2 files are not readable images" in " ".join(dry.output.split())
    result = run(*call)
    assert result.exit_code == 1, result.output
    assert "1 cells, 1 computed now, 1 failed, 1 missing" in result.output


def test_wrong_use_is_said_before_the_work(tmp_path: Path) -> None:
    models = tmp_path / "models.txt"
    models.write_text("cnn  # ours\n\nvit\n")
    result = run(*arguments(tmp_path / "out", str(models)), "--dry-run")
    assert "2 models" in result.output

    def said(*options: object) -> str:
        base: dict[object, object] = {
            "--models": "cnn",
            "--images": "test=builtin",
            "--out": tmp_path / "out",
        }
        base |= dict(zip(options[::2], options[1::2], strict=True))
        return refused("sweep", *(x for pair in base.items() for x in pair))

    assert "Two models are called 'cnn'" in said("--models", "cnn,cnn=vit")
    assert "There is no list of models lost.txt" in said("--models", "lost.txt")
    assert "No adapter knows the pattern 'nobody:*'" in said("--models", "nobody:*")
    assert "No model to sweep over" in said("--models", ",")
    assert "Two sets of images are called 'a'" in said("--images", "a=builtin,a=x")
    assert "There is no folder nowhere" in said("--images", "nowhere")
    assert "There is no file lost.pth" in said("--models", "cnn@lost.pth")
    assert "shard is written I/N" in said("--shard", "3")
    assert "There is no device 'cuda:99' here: choose among cpu" in said("--device", "cuda:99")
    assert "'gpu' is no device" in said("--device", "gpu")
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.png").write_text("no picture")
    assert "photos: none of the 1 files is an image" in said("--images", f"photos={photos}")
    assert "'lie' is not a metric" in said("--metrics", "lie") or "lie" in said("--metrics", "lie")
    file = tmp_path / "file"
    file.write_text("")
    assert "Not a directory" in said("--out", file / "below")
