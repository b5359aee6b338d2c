"""``captum-lie export`` and ``captum-lie audit``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from captum_lie import examples
from captum_lie.cli import options as o
from captum_lie.cli.console import explained, notes, say_written
from captum_lie.cli.inputs import find_models, parse_groups, parse_metrics, parse_size, resized
from captum_lie.errors import InvalidValueError

if TYPE_CHECKING:  # onnx is an extra: the commands are listed without it
    from captum_lie_onnx.report import AuditReport

_GROUPS = "translation_x,translation_y,rotation,scale,brightness"


class QuantizeMode(StrEnum):
    dynamic = "dynamic"
    static = "static"


class PresetName(StrEnum):
    export = "export"
    quantized = "quantized"


Reference = Annotated[
    str | None,
    typer.Option(
        help="What the file should behave like: another .onnx file, the audit.json of an earlier "
        "audit, or a PyTorch model (an embedded one, FILE.py:function, or a timm name)."
    ),
]
AllowDomain = Annotated[
    list[str] | None,
    typer.Option(help="Accept operators of this domain beside the standard ones. Repeatable."),
]


def audit_command(
    model: Annotated[Path, typer.Argument(help="The ONNX file.", metavar="MODEL.onnx")],
    images: o.Images = "builtin",
    reference: Reference = None,
    out: o.Out = Path("captum-lie-audit"),
    quantize: Annotated[
        QuantizeMode | None,
        typer.Option(help="Make the int8 variant and audit it against MODEL.onnx."),
    ] = None,
    groups: o.Groups = _GROUPS,
    metrics: Annotated[
        str, typer.Option(help="Sampling-based metrics with commas between; by default all.")
    ] = "all",
    samples: Annotated[
        int, typer.Option(min=2, help="Transformations per image of the sampled metrics.")
    ] = 4,
    preset: Annotated[
        PresetName | None,
        typer.Option(help="Thresholds to start from; 'quantized' with --quantize, else 'export'."),
    ] = None,
    thresholds: Annotated[
        Path | None, typer.Option(help="TOML file with thresholds, such as [parity] max_relative.")
    ] = None,
    threshold: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE, such as difference.lee=0.05. Repeatable."),
    ] = None,
    derivative: Annotated[
        Path | None,
        typer.Option(help="Graph of the Lie derivative; by default MODEL.lie.onnx if it is there."),
    ] = None,
    size: o.Size = None,
    limit: Annotated[int, typer.Option(min=1, help="Use at most so many images.")] = 128,
    max_unreadable: Annotated[
        float, typer.Option(min=0, max=1, help="Largest share of images that may be unreadable.")
    ] = 0.1,
    checkpoint: o.Checkpoint = None,
    batch_size: o.BatchSize = 16,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of onnxruntime; by default one per core.")
    ] = None,
    memory: Annotated[
        float, typer.Option(min=0.25, help="Memory limit of the file's process, in GiB.")
    ] = 4,
    load_seconds: Annotated[float, typer.Option(min=1, help="Time limit for loading.")] = 60,
    run_seconds: Annotated[float, typer.Option(min=1, help="Time limit for each batch.")] = 120,
    allow_domain: AllowDomain = None,
    seed: o.Seed = 0,
    json: o.AsJson = False,
) -> None:
    """Audit an ONNX file: did export, optimisation or quantisation change how it reacts to motion?

    Writes audit.html, audit.json, audit.csv and junit.xml. Exit code 0: all within the thresholds;
    1: a threshold is exceeded; 2: the file, the images or the options cannot be used.

    Examples:

      captum-lie audit cnn.onnx --reference cnn

      captum-lie audit model.onnx --images photos --reference mymodel.py:build

      captum-lie audit model.onnx --images photos --quantize static
    """
    with explained(), _extra():
        from captum_lie_onnx.auditing import METRICS, audit
        from captum_lie_onnx.images import read_images
        from captum_lie_onnx.inspection import inspect
        from captum_lie_onnx.limits import Limits
        from captum_lie_onnx.quantization import quantize as make_int8
        from captum_lie_onnx.runtime import OnnxModel
        from captum_lie_onnx.thresholds import resolve_thresholds

        start = preset.value if preset else "quantized" if quantize else "export"
        held = resolve_thresholds(start, thresholds, threshold or ())
        limits = Limits(
            memory=int(memory * 2**30),
            load_seconds=load_seconds,
            run_seconds=run_seconds,
            allowed_domains=tuple(allow_domain or ()),
        )
        chosen = parse_groups(groups, o.InterpolationName.bilinear, None)
        names = list(METRICS) if metrics == "all" else parse_metrics(metrics)
        wanted = parse_size(size)
        inspect(model, limits)
        other = _reference(reference, checkpoint)
        source: Path | Tensor = Path(images)
        if images == "builtin":
            source = _embedded(model, limits, wanted, limit)
        audited = model
        if quantize:
            with OnnxModel(model, limits=limits) as opened:
                expected = wanted or opened.input_size
            pictures, _ = read_images(source, expected, limit, max_unreadable)
            out.mkdir(parents=True, exist_ok=True)
            audited = make_int8(
                model,
                out / f"{model.stem}.int8-{quantize.value}.onnx",
                quantize.value,
                pictures,
                limits=limits,
            )
            other = other if other is not None else model
        report = audit(
            audited,
            source,
            other,
            derivative=derivative,
            groups=chosen,
            metrics=names,
            n_samples=samples,
            seed=seed,
            thresholds=held,
            size=wanted,
            limit=limit,
            max_unreadable=max_unreadable,
            batch_size=batch_size,
            threads=threads,
            limits=limits,
            reference_name=reference,
            show_progress=True,
        )
        written = report.save(out)
        if json:
            print(report.to_json())
        else:
            print_report(report)
            say_written([*([audited] if quantize else []), *written])
    raise typer.Exit(report.exit_code)


def export_command(
    model: Annotated[
        str,
        typer.Option(
            "--model",
            help="An embedded model (cnn, cnn_blur, vit, mixer), FILE.py:function that returns a "
            "torch.nn.Module, or a timm name.",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="The file to write; by default MODEL.onnx here.")
    ] = None,
    size: o.Size = None,
    mean: o.Mean = None,
    std: o.Std = None,
    pretrained: o.Pretrained = True,
    checkpoint: o.Checkpoint = None,
    derivative: Annotated[
        bool,
        typer.Option(
            "--derivative", help="Also write the exact Lie derivative as OUT.lie.onnx (--groups)."
        ),
    ] = False,
    groups: o.Groups = _GROUPS,
    opset: Annotated[int | None, typer.Option(help="ONNX opset; by default a recent one.")] = None,
    dynamic_batch: Annotated[bool, typer.Option(help="Let the batch size vary.")] = True,
) -> None:
    """Export a model to ONNX, checked against PyTorch before it is written.

    Normalisation is part of the graph, which takes plain RGB images in [0, 1].

    Examples:

      captum-lie export --model cnn --out cnn.onnx --derivative

      captum-lie export --model mymodel.py:build --size 224x224
    """
    with explained(), _extra():
        from captum_lie_onnx.derivative import export_lie_derivative
        from captum_lie_onnx.exporting import export

        (module,) = find_models(
            [model], pretrained=pretrained, checkpoint=checkpoint, mean=mean, std=std
        ).values()
        wanted = parse_size(size) or getattr(module, "input_size", None)
        if wanted is None and model not in examples.MODEL_NAMES:
            raise InvalidValueError(f"{model} does not say its input size: say it with --size HxW.")
        example = resized(examples.load_images(2)[0], wanted)
        path = out or Path(f"{Path(model.partition(':')[0]).stem}.onnx")
        written = [
            export(module, example, path, opset=opset, dynamic_batch=dynamic_batch, name=model)
        ]
        if derivative:
            chosen = parse_groups(groups, o.InterpolationName.bilinear, None)
            beside = path.with_suffix(".lie.onnx")
            written.append(export_lie_derivative(module, chosen, example, beside, opset=opset))
        say_written(written)


def print_report(report: AuditReport) -> None:
    """The verdict, every line that is not a pass, and the largest of the rest."""
    console = Console()
    table = Table(title=f"Audit of {report.candidate.name}", title_justify="left", box=None)
    for column, justify in (("line", "left"), ("of", "left"), ("value", "right"),
                            ("threshold", "right"), ("verdict", "left")):  # fmt: skip
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    colours = {"pass": "green", "fail": "red", "inconclusive": "yellow"}
    for c in report.checks:
        table.add_row(
            c.name,
            c.variant.replace("_", " "),
            f"{c.value:.3g}",
            f"{c.threshold:.3g}",
            f"[{colours[c.status]}]{c.status}",
        )
    console.print(table)
    verdict = "Passed" if report.passed else "Failed"
    console.print(
        f"{verdict}: {report.count('pass')} lines pass, {report.count('fail')} fail, "
        f"{report.count('inconclusive')} are inconclusive.",
        style="green" if report.passed else "red",
    )
    if report.skipped:
        names = ", ".join(report.skipped)
        notes.print(f"{len(report.skipped)} unreadable images were left out: {names}",
                    style="yellow", markup=False, soft_wrap=True)  # fmt: skip


def _embedded(model: Path, limits: object, size: tuple[int, int] | None, limit: int) -> Tensor:
    """Embedded images at the size that the file takes."""
    from captum_lie_onnx.limits import Limits
    from captum_lie_onnx.runtime import OnnxModel

    assert isinstance(limits, Limits)
    images, _ = examples.load_images(limit)
    with OnnxModel(model, limits=limits) as opened:
        return resized(images, size or opened.input_size)


def _reference(name: str | None, checkpoint: Path | None) -> nn.Module | Path | None:
    """Files by their endings, everything else is a model's name."""
    if name is None:
        return None
    if name.endswith((".onnx", ".json")):
        return Path(name)
    (module,) = find_models([name], checkpoint=checkpoint).values()
    return module.to(torch.device("cpu"))


@contextmanager
def _extra() -> Iterator[None]:
    """Say how to get what is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("onnx", "onnxruntime", "onnxscript"):
            raise
        raise InvalidValueError(
            f"This command needs {error.name}: pip install 'captum-lie[onnx]'"
        ) from error
