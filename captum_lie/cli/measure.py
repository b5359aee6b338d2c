"""``captum-lie measure``: LEE of any models on any images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from captum_lie._compat import StrEnum
from captum_lie.cli import options as o
from captum_lie.cli.console import explained, say_labels, say_skipped
from captum_lie.cli.finishing import finish
from captum_lie.cli.inputs import (
    choose_device,
    find_models,
    parse_groups,
    parse_metrics,
    parse_size,
)
from captum_lie.core.resampling import default_border
from captum_lie.studies import Baselines, Demands, Options, distributed
from captum_lie.studies.plan import Plan, carry_out
from captum_lie.studies.sharding import Shard
from captum_lie.studies.sources import find_images


class NormName(StrEnum):
    l2 = "l2"
    l1 = "l1"


def measure_command(
    model: o.Models,
    images: o.Images = "builtin",
    groups: o.Groups = "all",
    metrics: o.Metrics = "lee",
    samples: o.Samples = 10,
    out: o.Out = Path("captum-lie-report"),
    limit: o.Limit = None,
    size: o.Size = None,
    channels: o.Channels = None,
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
    raw_maps: Annotated[
        bool,
        typer.Option(
            "--raw-maps", help="Draw maps of large images pixel by pixel, not smoothed over them."
        ),
    ] = False,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Measure the I-th of N parts of the images alone, I from 0; put them together "
            "with captum-lie report DIR... --out DIR.",
        ),
    ] = None,
    json: o.AsJson = False,
) -> None:
    """Measure any models on any images: report.html, lee.csv and lee.json.

    Everything is stored in measurement.safetensors, too, from which captum-lie report draws the
    report again.

    Examples:

      captum-lie measure --model cnn --model vit

      captum-lie measure --model resnet18 --images photos --groups rotation,scale

      captum-lie measure --model ours=mymodel.py:build --images photos --size 224x224

      captum-lie measure --model small=imagenet:efficientnet_lite0
      --model large=imagenet:efficientnet_lite2 --images photos

      torchrun --nproc-per-node 2 -m captum_lie measure --model resnet18 --images photos
    """
    with explained(), distributed.process_group():
        chosen = parse_groups(groups, interpolation, border)
        baselines = Baselines(parse_metrics(metrics), samples)
        demands = Demands(parse_size(size), channels, batch_size)
        part = Shard.parse(shard) if shard else Shard()
        place = choose_device(device)
        models = find_models(
            model, pretrained=pretrained, checkpoint=checkpoint, mean=mean, std=std, control=control
        )
        source = find_images(images, limit)
        out.mkdir(parents=True, exist_ok=True)  # rather now than after the work
        plan = Plan(
            chosen,
            demands,
            Options(
                norm=norm.value,
                relative=relative,
                n_probes=probes,
                seed=seed,
                internal_batch_size=internal_batch_size,
                pictured=pictures,
                show_progress=True,
            ),
            baselines,
            shard=part,
            title=f"captum-lie: {', '.join(m.name for m in models if m.trained)}",
            settings={
                "images": images,
                "interpolation": interpolation.value,
                "border": border.value if border else default_border(interpolation.value),
                "norm": norm.value,
                "size": size or "as each model expects",
            },
        )
        together = distributed.world_size() > 1
        measured = (distributed.carry_out if together else carry_out)(plan, models, source, place)
        if measured is None:  # the first of several processes has it all
            return
        measurement = measured
        finish(measurement, out, json=json, raw_maps=raw_maps)
        say_skipped(source)
        if images != "builtin":
            say_labels(measurement)
