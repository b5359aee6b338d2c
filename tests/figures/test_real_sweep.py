"""A sweep of one small model: its figures hold what its cell holds, and what measuring gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from captum_lie.errors import InvalidValueError
from captum_lie.examples import load_images
from captum_lie.layerwise import LayerwiseSampledError, SubnetworkEquivarianceError
from captum_lie.models import load_model
from captum_lie.results.cells import read_cells
from captum_lie.show.figures import Sweep, draw_figures
from captum_lie.studies.sweeping import Resources, SweepSettings, expand, parse_splits
from captum_lie.studies.sweeping.grid import grid_of
from captum_lie.studies.sweeping.images import fingerprints
from captum_lie.studies.sweeping.job import Job, carry_out_job
from tests.command_line import refused

SETTINGS = SweepSettings(
    groups=("translation_x",), layers=True, layer_metrics=("eq_t",), subnetworks=True, n_samples=2
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep's folder, computed in this process."""
    found = tmp_path_factory.mktemp("sweep")
    splits = parse_splits(["test=builtin"], 3)
    grid = grid_of(expand(["cnn"]), splits, SETTINGS, fingerprints(splits))
    carry_out_job(Job(grid.tasks, SETTINGS, Resources(batch_size=2), "cpu", found))
    return found


def test_figures_hold_what_the_cell_holds(folder: Path) -> None:
    (cell,) = read_cells(folder)
    assert cell.status == "ok", cell.traceback
    (record,) = cell.records
    assert record.lee is not None
    drawn = {d.name: d.table for d in draw_figures(Sweep([cell])) if d.table is not None}
    assert set(drawn) == {
        "fig1_accuracy", "fig4_layers", "fig4_sampled", "fig8_subnetworks", "worst_directions",
    }  # fmt: skip
    assert drawn["fig1_accuracy"]["value"].item() == record.lee.mean.item()
    heads = drawn["fig8_subnetworks"].set_index("module")["value"]
    (result,) = record.subnetworks
    names = [row.module for row in result.rows]
    own = result.relative_to_generator[names.index("stem.maxpool")].mean().item()
    assert heads["stem.maxpool"] == pytest.approx(own)


def test_a_cell_keeps_what_the_methods_give(folder: Path) -> None:
    (record,) = read_cells(folder)[0].records
    images, _ = load_images(3)
    model = load_model("cnn")
    (alone,) = LayerwiseSampledError(model).evaluate([images], "eq_t", n_samples=2)
    (sampled,) = record.sampled
    single: dict[str, Any] = {"equal_nan": True, "rtol": 1e-4, "atol": 1e-8}  # other batches
    torch.testing.assert_close(sampled.squared_error, alone.squared_error, **single)
    heads = SubnetworkEquivarianceError(model).attribute(images, "translation_x")
    torch.testing.assert_close(record.subnetworks[0].squared_norm, heads.squared_norm, **single)
    pd.testing.assert_frame_equal(
        record.subnetworks[0].to_dataframe()[["module", "kind"]],
        heads.to_dataframe()[["module", "kind"]],
    )


def test_settings_that_came_later_change_no_key_at_their_default() -> None:
    assert {"layer_metrics", "subnetworks"} & SweepSettings(layers=True).plain().keys() == set()
    assert SweepSettings.from_plain(SETTINGS.plain()) == SETTINGS
    with pytest.raises(InvalidValueError, match="--layers"):
        SweepSettings(subnetworks=True)
    told = refused("sweep", "--models", "cnn", "--images", "builtin", "--out", "nowhere",
                   "--layers", "--layer-metrics", "eq_q")  # fmt: skip
    assert "eq_q" in told
