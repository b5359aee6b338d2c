"""``captum-lie measure``: LEE of any models on any images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn

from captum_lie import __version__
from captum_lie.cli import options as o
from captum_lie.cli.console import explained, print_lee, say_skipped, say_written
from captum_lie.cli.inputs import (
    check_models,
    choose_device,
    expected_size,
    find_images,
    find_models,
    parse_groups,
    parse_metrics,
    parse_size,
)
from captum_lie.groups import OneParameterGroup
from captum_lie.layerwise import LayerwiseEquivarianceError
from captum_lie.layerwise.report import draw_maps, layer_sections
from captum_lie.measurement import UNTRAINED, baseline_table, measure
from captum_lie.report import Section, render_json, write_reports
from captum_lie.resampling import default_border

#: Batches that the layerwise section of a report is computed on.
LAYER_BATCHES = 2


class NormName(StrEnum):
    l2 = "l2"
    l1 = "l1"


def measure_command(
    model: o.Models,
    images: o.Images = "builtin",
    groups: o.Groups = "all",
    metrics: o.Metrics = "lee",
    samples: Annotated[
        int, typer.Option(min=1, help="Transformations per image of the sampled metrics.")
    ] = 10,
    out: o.Out = Path("captum-lie-report"),
    limit: o.Limit = None,
    size: o.Size = None,
    mean: o.Mean = None,
    std: o.Std = None,
    pretrained: o.Pretrained = True,
    checkpoint: o.Checkpoint = None,
    control: Annotated[
        bool,
        typer.Option(
            help="Also measure the untrained architecture (a factory needs an argument "
            "'pretrained' for this)."
        ),
    ] = True,
    interpolation: o.Interpolate = o.InterpolationName.bilinear,
    border: o.BorderRule = None,
    norm: Annotated[
        NormName, typer.Option(help="l2: the paper's Eq. 4; l1: what its released script reports.")
    ] = NormName.l2,
    device: o.Device = None,
    batch_size: o.BatchSize = 16,
    internal_batch_size: o.InternalBatchSize = None,
    seed: o.Seed = 0,
    relative: o.Relative = True,
    probes: o.Probes = 8,
    pictures: Annotated[int, typer.Option(min=0, help="Images to draw in the report.")] = 3,
    json: o.AsJson = False,
) -> None:
    """Measure any models on any images: report.html, lee.csv and lee.json.

    Examples:

      captum-lie measure --model cnn --model vit

      captum-lie measure --model resnet18 --images photos --groups rotation,scale

      captum-lie measure --model mymodel.py:build --images photos --size 224x224
    """
    with explained():
        chosen = parse_groups(groups, interpolation, border)
        baselines = parse_metrics(metrics)
        wanted = parse_size(size)
        models = find_models(
            model, pretrained=pretrained, checkpoint=checkpoint, mean=mean, std=std, control=control
        )
        batches = find_images(images, wanted or expected_size(models), batch_size, limit)
        run(
            models,
            batches,
            chosen,
            out,
            device=device,
            seed=seed,
            relative=relative,
            n_probes=probes,
            baselines=baselines,
            n_samples=samples,
            json=json,
            title=f"captum-lie: {', '.join(model)}",
            norm=norm.value,
            pictured=pictures,
            internal_batch_size=internal_batch_size,
            settings={
                "images": images,
                "interpolation": interpolation.value,
                "border": border.value if border else default_border(interpolation.value),
                "norm": norm.value,
                "size": size or "as the model expects",
            },
        )
        say_skipped(batches)


def run(
    models: dict[str, nn.Module],
    batches: Iterable[Tensor],
    groups: list[OneParameterGroup],
    out: Path,
    *,
    device: str | None,
    json: bool,
    title: str,
    settings: dict[str, Any],
    layer_groups: list[OneParameterGroup] | None = None,
    baselines: list[str] | None = None,
    n_samples: int = 10,
    baseline_batches: int | None = None,
    sections: Sequence[Section] = (),
    **options: Any,
) -> None:
    """Measure, write the reports, print the table.

    Args:
        layer_groups: also decompose LEE over the modules, under these groups.
        baselines: also measure these metrics of :mod:`captum_lie.metrics`.
        n_samples: transformations per image of the sampled ones.
        baseline_batches: use so many batches for them; all by default.
        sections: what adapters add to the report.
    """
    place = choose_device(device)
    models = {name: model.to(place) for name, model in models.items()}
    check_models(models, batches)
    out.mkdir(parents=True, exist_ok=True)  # rather now than after the work
    result = measure(
        models,
        batches,
        groups,
        show_progress=True,
        settings={
            **settings,
            "device": str(place),
            "seed": options["seed"],
            "probes": options.get("n_probes", 8),
            "captum-lie": __version__,
            "torch": torch.__version__,
        },
        **options,
    )
    trained = {name: m for name, m in models.items() if not name.endswith(UNTRAINED)}
    if baselines:
        result.metrics = baseline_table(
            trained, batches, baselines, groups, n_samples, options["seed"], baseline_batches
        )
    layers = None
    if layer_groups:
        results = {
            name: LayerwiseEquivarianceError(model).evaluate(
                islice(batches, LAYER_BATCHES),
                layer_groups,
                show_progress=True,
                description=f"{name}: layers",
            )
            for name, model in trained.items()
        }
        maps = draw_maps(trained, results, layer_groups, result.pictures[0].image[None])
        layers = layer_sections(results, maps)
    written = write_reports(result, out, title=title, layers=layers, sections=sections)
    if json:
        print(render_json(result))
    else:
        print_lee(result)
        say_written(written)
