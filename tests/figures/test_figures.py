"""Figures: their tables hold the numbers of the saved results, and what is missing is said."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from captum_lie.errors import InvalidValueError
from captum_lie.results import save
from captum_lie.results.cell import Cell
from captum_lie.results.cells import read_cells
from captum_lie.show.figures import (
    BY_DEFAULT,
    FigureOptions,
    Slice,
    Sweep,
    draw_figures,
    read_slices,
)
from captum_lie.show.figures.angles import ratios
from captum_lie.show.figures.statistics import rank_correlation, spearman
from captum_lie.show.figures.subnetworks import along_depth
from tests.command_line import refused, run
from tests.figures.cells import cell

CELLS = [
    cell("a", (1.0, 3.0), right=0),
    cell("b", (2.0, 4.0), right=1, kind="transformer"),
    cell("c", (5.0, 7.0), right=2, kind="mixer"),
    cell("d@random", (8.0, 8.0), right=1),
    cell("a", (2.0, 6.0), images="train", right=None),
]
SLICES = (Slice("size", (("a", "b"), ("a", "absent"))),)


def table(name: str, cells: list[Cell] = CELLS, *, relative: bool = False) -> pd.DataFrame:
    sweep = Sweep(cells, FigureOptions(relative, slices=SLICES))
    found = {drawn.name: drawn for drawn in draw_figures(sweep)}[name]
    assert found.table is not None, found.missing
    return found.table


def test_figure_1_holds_lee_accuracy_and_their_rank_correlation() -> None:
    found = table("fig1_accuracy").set_index("label")
    assert found["value"].to_dict() == {"a": 2.0, "b": 3.0, "c": 6.0, "d@random": 8.0}
    assert found["accuracy"].to_dict() == {"a": 0.0, "b": 0.5, "c": 1.0, "d@random": 0.5}
    assert found.loc["b", "stderr"] == 1.0  # values 2 and 4
    assert found.loc["b", "accuracy_stderr"] == pytest.approx(math.sqrt(0.5) / math.sqrt(2))
    assert found["rho"].tolist() == [pytest.approx(1.0)] * 4  # of the three trained ones
    assert (found["rho_n"] == 3).all()
    relative = table("fig1_accuracy", relative=True).set_index("label")
    assert relative["value"].to_dict() == {"a": 1.0, "b": 1.5, "c": 3.0, "d@random": 4.0}
    assert relative.loc["a", "stderr"] == 0.5


def test_figures_5_and_9_have_a_panel_for_each_error() -> None:
    found = table("fig5_metrics").set_index(["panel", "label"])["value"]
    assert found["LEE, rotation", "a"] == 4.0
    assert found["LEE, shear x", "a"] == 6.0
    assert found["consistency: changes", "b"] == 0.25
    assert found["group sample, rotation", "b"] == pytest.approx(0.015)
    found = table("fig9_groups").set_index(["panel", "label"])["value"]
    assert found["LEE, hyperbolic rotation", "c"] == 24.0
    assert found["LEE, stretch x", "c"] == 36.0


def test_figure_4_holds_shares_by_kind_of_layer() -> None:
    found = table("fig4_layers").set_index(["model", "kind"])
    # Contributions 2, -4, 1 of a convolution, a non-linearity and a convolution; their sum is -1.
    assert found.loc[("a", "convolution"), "share"] == pytest.approx(3 / 7)
    assert found.loc[("a", "non-linearity"), "share"] == pytest.approx(4 / 7)
    assert found.loc[("a", "convolution"), "signed_share"] == pytest.approx(-3.0)
    assert set(table("fig4_layers")["class"]) == {"CNN", "ViT", "Mixer"}
    sampled = table("fig4_sampled").set_index(["model", "measure", "kind"])["share"]
    # Squared errors 4, 8, 4 of leaves with 4, 1, 16 values.
    assert sampled["a", "sum", "convolution"] == pytest.approx(8 / 16)
    assert sampled["a", "over √dim", "convolution"] == pytest.approx((2 + 1) / (2 + 8 + 1))
    assert sampled["a", "over dim", "convolution"] == pytest.approx(1.25 / 9.25)
    assert sampled["a", "LEE", "convolution"] == pytest.approx(3 / 7)


def test_figure_6_compares_the_pairs_that_there_are() -> None:
    (row,) = table("fig6_slices").to_dict("records")
    assert (row["before"], row["after"], row["lee_before"], row["lee_after"]) == (
        "a",
        "b",
        2.0,
        3.0,
    )
    assert row["ratio"] == 1.5
    assert row["ratio_stderr"] == pytest.approx(1.5 * math.hypot(1 / 2, 1 / 3))


def test_pairs_are_found_by_what_follows_a_prefix() -> None:
    cells = [cell("imagenet:a", (1.0, 3.0)), cell("timm:b", (2.0, 4.0))]
    (row,) = table("fig6_slices", cells).to_dict("records")
    assert (row["before"], row["after"], row["ratio"]) == ("imagenet:a", "timm:b", 1.5)


def test_figure_7_holds_the_gap_between_sets_of_images() -> None:
    (row,) = table("fig7_gap").to_dict("records")
    assert (row["first"], row["other"], row["gap"]) == ("test", "train", 2.0)
    assert row["gap_stderr"] == pytest.approx(math.hypot(1.0, 2.0))


def test_figure_8_holds_leaves_along_depth() -> None:
    found = table("fig8_subnetworks")
    own = found[found["model"] == "a"]
    assert own["depth"].tolist() == [0.0, 0.5, 1.0]
    assert own["value"].tolist() == [2.0, 3.0, 4.0]


def test_a_peak_does_not_carry_a_part_of_the_depth() -> None:
    depth, value = [0.0, 0.02, 0.04, 1.0], [1.0, 2.0, 1000.0, 5.0]
    found = along_depth(pd.DataFrame({"model": "a", "depth": depth, "value": value}))
    assert found["value"].tolist() == [2.0, 5.0]


def test_probes_are_compared_where_their_number_differs() -> None:
    cells = [*CELLS, cell("a", n_probes=32)]
    found = table("fig9_probes", cells)
    assert set(found["model"]) == {"a"}
    assert set(found["n_probes"]) == {8, 32}
    assert found["error"].tolist() == pytest.approx([math.hypot(0.5, 0.5) / 4] * len(found))
    # Other figures take each model once, under the settings that most cells share.
    assert (table("fig1_accuracy", cells)["label"] == "a").sum() == 1


def test_beyond_the_paper() -> None:
    found = table("worst_directions").set_index(["model", "motion"])
    assert found.loc[("a", "translation along y"), "share"] == pytest.approx(1.0)
    assert found.loc[("a", "rotation"), "worst"] == pytest.approx(9.0)
    angles = table("finite_angles")
    own = angles[angles["model"] == "a"]
    assert own["angle"].to_numpy() == pytest.approx(np.degrees([0.1, 0.3]))
    assert own["foretold"].tolist() == pytest.approx([2 * 0.1**2, 6 * 0.3**2])
    assert own["error"].tolist() == [0.01, 0.02]
    curve = ratios(own, np.array([0.0, 90.0]))
    foretold = (2 * 0.1**2 + 6 * 0.3**2) / 2
    assert curve["ratio"].tolist() == pytest.approx([0.015 / foretold])


def test_rank_correlation_of_known_cases() -> None:
    x = np.arange(20.0)
    assert spearman(x, -(x**3)) == pytest.approx(-1.0)
    assert spearman(np.array([1.0, 1, 2, 3]), np.array([1.0, 2, 3, 4])) == pytest.approx(
        4.5 / math.sqrt(4.5 * 5)
    )
    noisy = np.random.default_rng(1).normal(size=20)
    found = rank_correlation(x, noisy)
    assert found.low < found.rho < found.high
    assert found.low < 0 < found.high
    assert rank_correlation(x, noisy) == found
    assert rank_correlation(x, noisy, seed=1) != found
    x[3] = np.nan
    assert rank_correlation(x, noisy).n == 19
    assert "too few" in str(rank_correlation(x[:3], x[:3]))
    assert "undefined" in str(rank_correlation(np.ones(5), noisy[:5]))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("fig1_accuracy", "--groups translation_x"),
        ("fig4_layers", "--layers"),
        ("fig4_sampled", "--layer-metrics"),
        ("fig5_metrics", "--groups translation_x,rotation,shear_x"),
        ("fig6_slices", "--models"),
        ("fig7_gap", "--images"),
        ("fig8_subnetworks", "--subnetworks"),
        ("fig9_groups", "--groups"),
        ("fig9_probes", "--probes"),
        ("worst_directions", "--groups all"),
        ("finite_angles", "--metrics group_sample"),
    ],
)
def test_what_is_missing_is_said(name: str, says: str) -> None:
    failed = Cell("k", "m", "m", "test", status="failed", cause="why")
    found = {drawn.name: drawn for drawn in draw_figures(Sweep([failed]))}
    assert found[name].figure is None
    assert says in found[name].missing


def test_slices_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text('[[slice]]\nname = "mine"\npairs = [["a", "b"]]\n')
    assert read_slices(path) == (Slice("mine", (("a", "b"),)),)
    for bad in ("no toml", "[[slice]]\nname = 1\n", '[[slice]]\nname = "x"\npairs = [["a"]]\n'):
        path.write_text(bad)
        with pytest.raises(InvalidValueError, match=r"own\.toml"):
            read_slices(path)


def test_the_command_writes_three_files_a_figure(tmp_path: Path) -> None:
    (tmp_path / "sweep" / "cells").mkdir(parents=True)
    for i, one in enumerate(CELLS[:3]):
        save(one, tmp_path / "sweep" / "cells" / f"{i}.safetensors")
    (tmp_path / "sweep" / "cells" / "cut.safetensors").write_bytes(b"cut off")
    assert len(read_cells(tmp_path / "sweep")) == 3
    result = run("figures", tmp_path / "sweep", "--out", tmp_path / "out", "--which", "1,7")
    assert result.exit_code == 0, result.output
    assert "Left out fig7_gap" in result.output
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == [f"fig1_accuracy.{kind}" for kind in ("csv", "png", "svg")]
    assert (tmp_path / "out" / "fig1_accuracy.svg").read_text().rstrip().endswith("</svg>")
    found = pd.read_csv(tmp_path / "out" / "fig1_accuracy.csv")
    assert found["value"].tolist() == [2.0, 3.0, 6.0]
    assert "none of these" in refused(
        "figures", tmp_path / "sweep", "--out", tmp_path / "out", "--which", "7"
    )
    assert "holds no cells" in refused("figures", tmp_path, "--out", tmp_path / "out")
    assert "'10'" in refused("figures", tmp_path / "sweep", "--out", tmp_path, "--which", "10")


def test_every_figure_is_listed() -> None:
    assert {*"1456789"} < set(BY_DEFAULT)
