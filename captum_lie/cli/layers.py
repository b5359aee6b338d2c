"""``captum-lie layers``: which modules cause the equivariance error."""

from __future__ import annotations

import json as json_module
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from captum_lie._compat import StrEnum
from captum_lie.cli import options as o
from captum_lie.cli.console import explained, say_skipped, say_written
from captum_lie.cli.finishing import LAYERS
from captum_lie.cli.inputs import (
    choose_device,
    find_models,
    parse_groups,
    parse_size,
)
from captum_lie.results import save
from captum_lie.show.layer_report import table_of, write_layer_report
from captum_lie.studies import Demands, LayerOptions, decompose, prepare
from captum_lie.studies.sources import find_images


class MeasureName(StrEnum):
    aligned = "aligned"
    norm = "norm"


def layers(
    model: o.Models,
    images: o.Images = "builtin",
    groups: o.Groups = "translation_x",
    measure: Annotated[
        MeasureName,
        typer.Option(help="aligned: signed, sums to LEE; norm: the paper's own, not additive."),
    ] = MeasureName.aligned,
    out: o.Out = Path("captum-lie-layers"),
    limit: o.Limit = None,
    size: o.Size = None,
    channels: o.Channels = None,
    mean: o.Mean = None,
    std: o.Std = None,
    pretrained: o.Pretrained = True,
    checkpoint: o.Checkpoint = None,
    interpolation: o.Interpolate = o.InterpolationName.bilinear,
    border: o.BorderRule = None,
    probes: Annotated[
        int | None,
        typer.Option(min=4, help="For --measure norm: estimate with so many backward passes."),
    ] = None,
    pictures: Annotated[
        int, typer.Option(min=0, help="Images on which to draw where the leading modules err.")
    ] = 2,
    device: o.Device = None,
    batch_size: o.BatchSize = 8,
    seed: o.Seed = 0,
    json: o.AsJson = False,
) -> None:
    """Decompose LEE over every module: layers.csv, layers.json, PNG pictures, layers.html.

    Examples:

      captum-lie layers --model cnn --model cnn_blur

      captum-lie layers --model vit --groups translation_x,rotation --measure norm
    """
    with explained():
        chosen = parse_groups(groups, interpolation, border)
        wanted = parse_size(size)
        models = find_models(
            model, pretrained=pretrained, checkpoint=checkpoint, mean=mean, std=std
        )
        place = choose_device(device)
        source = find_images(images, limit)
        placed = [found.to(place) for found in models]
        batches, _ = prepare(placed, source, Demands(wanted, channels, batch_size))
        out.mkdir(parents=True, exist_ok=True)
        options = LayerOptions(measure.value, probes, seed, pictured=pictures, show_progress=True)
        measurement = replace(
            decompose(placed, batches, chosen, options),
            title=f"captum-lie layers: {', '.join(m.name for m in models)}",
            settings={"images": images, "measure": measure.value, "seed": seed},
        )
        stored = save(measurement, out / LAYERS)
        written = [*write_layer_report(measurement, out), stored]
        results = measurement.layers
        table = table_of(results)
        if json:
            print(json_module.dumps(json_module.loads(table.to_json(orient="records"))))
        else:
            print_largest(table)
            say_written(written)
            say_skipped(source)


def print_largest(table: pd.DataFrame, most: int = 8) -> None:
    """The largest self contributions of each model and group."""
    for (model, group), part in table.groupby(["model", "group"], sort=False):
        total = part["contribution"].iloc[0]
        shown = part.reindex(part["self_contribution"].abs().sort_values(ascending=False).index)
        view = Table(title=f"{model}, {group}: {total:.3g}", title_justify="left",
                     box=box.SIMPLE_HEAD)  # fmt: skip
        for column in ("module", "type", "layouts"):
            view.add_column(column, overflow="fold")
        view.add_column("contribution", justify="right", no_wrap=True)
        for row in shown.head(most).to_dict("records"):
            call = f" #{row['call'] + 1}" if row["call"] else ""
            view.add_row(
                f"{row['module'] or '(model)'}{call}",
                row["type"],
                f"{row['input_layout']} → {row['output_layout']}",
                f"{row['self_contribution']:.3g}",
            )
        Console().print(view)
