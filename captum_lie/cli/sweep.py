"""``captum-lie sweep``: many models on several sets of images, resumable."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from captum_lie.cli import clusters as c
from captum_lie.cli import options as o
from captum_lie.cli.console import explained, say, say_written
from captum_lie.cli.inputs import names_in, parse_metrics, parse_size
from captum_lie.core.groups import GROUP_NAMES
from captum_lie.errors import InvalidValueError
from captum_lie.layerwise.motions import METRICS as LAYER_METRICS
from captum_lie.studies.sharding import Shard
from captum_lie.studies.sweeping import (
    Resources,
    Summary,
    SweepSettings,
    expand,
    parse_splits,
    submit,
    sweep,
)
from captum_lie.studies.sweeping.sweep import preview
from captum_lie.studies.sweeping.work import Again


def sweep_command(
    models: Annotated[
        list[str],
        typer.Option(
            metavar="SPEC[,SPEC...]",
            help="Any model of measure, with @random for random weights; a pattern (timm:resnet*); "
            "a .txt file with one a line; or a list (embedded, paper, paper-core, "
            "paper-layerwise). May be repeated.",
        ),
    ],
    images: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=SOURCE[,...]",
            help="Sets of images, each any of measure's --images. May be repeated.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of cells and tables; a sweep resumes in it.")],
    groups: o.Groups = "all",
    metrics: o.Metrics = "lee",
    layers: Annotated[bool, typer.Option(help="Decompose LEE over the modules, too.")] = False,
    layer_groups: Annotated[
        str, typer.Option(help="Groups of that decomposition.")
    ] = "translation_x",
    layer_metrics: Annotated[
        str,
        typer.Option(help="With --layers, of each module alone: eq_t, eq_t_frac, eq_r."),
    ] = "",
    subnetworks: Annotated[
        bool, typer.Option(help="With --layers, also the errors of the head networks.")
    ] = False,
    control: Annotated[bool, typer.Option(help="Measure the untrained architecture, too.")] = False,
    relative: o.Relative = True,
    timeout: Annotated[
        float | None, typer.Option(min=0, metavar="SECONDS", help="Time limit of a cell.")
    ] = None,
    memory: Annotated[
        float | None,
        typer.Option(min=0, metavar="GIB", help="Memory limit of a model's process."),
    ] = None,
    limit: o.Limit = None,
    size: o.Size = None,
    channels: o.Channels = None,
    pretrained: o.Pretrained = True,
    interpolation: o.Interpolate = o.InterpolationName.bilinear,
    border: o.BorderRule = None,
    samples: o.Samples = 10,
    probes: o.Probes = 8,
    seed: o.Seed = 0,
    batch_size: o.BatchSize = 16,
    device: Annotated[
        list[str] | None,
        typer.Option(help="Compute on these, one process each; by default every GPU, or the CPU."),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Of the models, every N-th from the I-th on; by default "
            "SLURM_ARRAY_TASK_ID/COUNT in an array job.",
        ),
    ] = None,
    refresh: Annotated[bool, typer.Option(help="Compute every cell anew.")] = False,
    retry_failed: Annotated[bool, typer.Option(help="Compute failed cells anew.")] = False,
    dry_run: Annotated[
        bool, typer.Option(help="List the cells, and what is known of their time; compute nothing.")
    ] = False,
    cluster: c.Name = None,
    array: c.Array = None,
    partition: c.Partition = None,
    gpus: c.Gpus = None,
    cpus: c.Cpus = None,
    time: c.Time = 60,
    slurm: c.Slurm = None,
    wait: c.Wait = True,
) -> None:
    """Measure many models on several sets of images; run again, it computes what is missing.

    Writes sweep.csv (every number, one a row) and models.csv (timm's columns). Each model runs in a
    process of its own: what fails is recorded with its cause and stops nothing else. Exit code 0:
    all fine; 1: some failed, 2: wrong usage.

    Examples:

      captum-lie sweep --models embedded --images test=builtin --out sweep

      captum-lie sweep --models 'timm:resnet*,paper-core' --images test=photos/test
      --images train=photos/train --metrics consistency,eq_t --control --timeout 600 --out sweep

      captum-lie sweep --models paper --images test=photos --out sweep --dry-run

      captum-lie sweep --models paper --images test=photos --out sweep --cluster slurm --array 32
      --partition gpu --gpus 1 --time 240 --slurm account=vision --no-wait
    """
    with explained():
        settings = SweepSettings(
            groups=_names(groups, GROUP_NAMES),
            interpolation=interpolation.value,
            border=border.value if border else None,
            metrics=tuple(parse_metrics(metrics)),
            layers=layers,
            layer_groups=_names(layer_groups, GROUP_NAMES),
            layer_metrics=_names(layer_metrics, LAYER_METRICS),
            subnetworks=subnetworks,
            control=control,
            relative=relative,
            n_probes=probes,
            seed=seed,
            n_samples=samples,
            size=parse_size(size),
            channels=channels,
            pretrained=pretrained,
        )
        asked, splits = expand(models), parse_splits(images, limit)
        part = Shard.parse(shard) if shard else Shard.from_environment()
        place = c.parse_cluster(
            cluster, slurm, minutes=time, tasks=array, partition=partition, gpus=gpus, cpus=cpus
        )
        if place is not None and part.count > 1:
            raise InvalidValueError("--cluster shares out the models itself: leave out --shard.")
        if dry_run:
            print(preview(asked, splits, out, settings, part))
            return
        resources = Resources(batch_size, timeout, memory, tuple(device or ()))
        again = Again(refresh, retry_failed)
        if place is None:
            summary = sweep(
                asked, splits, out, settings, resources=resources, again=again, shard=part
            )
        else:
            jobs = submit(place, asked, splits, out, settings, resources=resources, again=again)
            c.say_submitted(jobs)
            if not wait and jobs.left():
                return
            summary = jobs.collect()
        _say(summary, out)
    if summary.interrupted is not None:
        raise typer.Exit(128 + summary.interrupted)
    if summary.failed or summary.missing:
        raise typer.Exit(1)


def _names(text: str, every: tuple[str, ...]) -> tuple[str, ...]:
    return every if text == "all" else tuple(names_in(text))


def _say(summary: Summary, out: Path) -> None:
    for cell in summary.failed:
        say(f"Failed: {cell.label} on {cell.images}: {cell.cause}", style="red")
    say(
        f"{len(summary.cells)} cells, {summary.computed} computed now, "
        f"{len(summary.failed)} failed"
        + (f", {summary.missing} missing" if summary.missing else "")
        + (", interrupted" if summary.interrupted else "")
        + "."
    )
    if summary.missing:
        say("The same command again computes what is missing.")
    say_written([out / "sweep.csv", out / "models.csv"])
