"""``captum-lie measure``: LEE of any models on any images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import nn

from captum_lie import __version__
from captum_lie._compat import StrEnum
from captum_lie.cli import options as o
from captum_lie.cli.console import (
    explained,
    print_lee,
    say_labels,
    say_skipped,
    say_written,
)
from captum_lie.cli.inputs import (
    choose_device,
    find_images,
    find_models,
    parse_groups,
    parse_metrics,
    parse_size,
    prepare,
)
from captum_lie.groups import OneParameterGroup
from captum_lie.images import ImageSource
from captum_lie.layerwise import LayerwiseEquivarianceError
from captum_lie.layerwise.report import draw_maps, layer_sections
from captum_lie.measurement import UNTRAINED, Measurement, accuracy, baseline_table, measure
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
    json: o.AsJson = False,
) -> None:
    """Measure any models on any images: report.html, lee.csv and lee.json.

    Examples:

      captum-lie measure --model cnn --model vit

      captum-lie measure --model resnet18 --images photos --groups rotation,scale

      captum-lie measure --model ours=mymodel.py:build --images photos --size 224x224

      captum-lie measure --model small=imagenet:efficientnet_lite0
      --model large=imagenet:efficientnet_lite2 --images photos
    """
    with explained():
        chosen = parse_groups(groups, interpolation, border)
        baselines = parse_metrics(metrics)
        wanted = parse_size(size)
        place = choose_device(device)
        models = find_models(
            model, pretrained=pretrained, checkpoint=checkpoint, mean=mean, std=std, control=control
        )
        source = find_images(images, limit)
        result = run(
            models,
            source,
            chosen,
            out,
            device=place,
            size=wanted,
            channels=channels,
            batch_size=batch_size,
            raw_maps=raw_maps,
            seed=seed,
            relative=relative,
            n_probes=probes,
            baselines=baselines,
            n_samples=samples,
            json=json,
            title=f"captum-lie: {', '.join(m for m in models if not m.endswith(UNTRAINED))}",
            norm=norm.value,
            pictured=pictures,
            internal_batch_size=internal_batch_size,
            settings={
                "images": images,
                "interpolation": interpolation.value,
                "border": border.value if border else default_border(interpolation.value),
                "norm": norm.value,
                "size": size or "as each model expects",
            },
        )
        say_skipped(source)
        if images != "builtin":
            say_labels(result.subjects)


def run(
    models: Mapping[str, nn.Module],
    source: ImageSource,
    groups: list[OneParameterGroup],
    out: Path,
    *,
    device: torch.device,
    json: bool,
    title: str,
    settings: dict[str, Any],
    layer_groups: list[OneParameterGroup] | None = None,
    baselines: list[str] | None = None,
    n_samples: int = 10,
    baseline_batches: int | None = None,
    sections: Callable[[], Sequence[Section]] = tuple,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    batch_size: int = 16,
    raw_maps: bool = False,
    **options: Any,
) -> Measurement:
    """Measure, write the reports, print the table, and give what was measured.

    Args:
        layer_groups: also decompose LEE over the modules, under these groups.
        baselines: also measure these metrics of :mod:`captum_lie.metrics`.
        n_samples: transformations per image of the sampled ones.
        baseline_batches: use so many batches for them; all by default.
        sections: gives what adapters add to the report, once it is asked for.
        size, channels, batch_size: see :func:`captum_lie.cli.inputs.prepare`.
        raw_maps: draw attribution maps pixel by pixel, whatever their size.
    """
    models = {name: model.to(device) for name, model in models.items()}
    batches, subjects = prepare(models, source, size=size, channels=channels, batch_size=batch_size)
    out.mkdir(parents=True, exist_ok=True)  # rather now than after the work
    result = measure(
        models,
        batches,
        groups,
        show_progress=True,
        settings={
            **settings,
            "device": str(device),
            "seed": options["seed"],
            "probes": options.get("n_probes", 8),
            "captum-lie": __version__,
            "torch": torch.__version__,
        },
        **options,
    )
    trained = {name: m for name, m in models.items() if not name.endswith(UNTRAINED)}
    for name, model in models.items():
        known = accuracy(model, batches[name])
        if known is not None:
            subjects[name] = replace(subjects[name], accuracy=known[0], accuracy_stderr=known[1])
    result.subjects = subjects
    if baselines:
        result.metrics = baseline_table(
            trained, batches, baselines, groups, n_samples, options["seed"], baseline_batches
        )
    layers = None
    if layer_groups:
        results = {
            name: LayerwiseEquivarianceError(model).evaluate(
                islice(batches[name], LAYER_BATCHES),
                layer_groups,
                show_progress=True,
                description=f"{name}: layers",
            )
            for name, model in trained.items()
        }
        shown = {name: result.pictures[0].images[name][None] for name in trained}
        maps = draw_maps(trained, results, layer_groups, shown)
        layers = layer_sections(results, maps)
    written = write_reports(
        result, out, title=title, layers=layers, sections=sections, raw_maps=raw_maps
    )
    if json:
        print(render_json(result))
    else:
        print_lee(result)
        say_written(written)
    return result
