"""``captum-lie export`` and ``captum-lie audit``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import torch
import typer
from torch import nn

from captum_lie import examples
from captum_lie._compat import StrEnum
from captum_lie.cli import options as o
from captum_lie.cli.console import explained, say_written
from captum_lie.cli.inputs import (
    find_models,
    parse_groups,
    parse_metrics,
    parse_normalisation,
    parse_size,
    resized,
)
from captum_lie.errors import InvalidValueError

if TYPE_CHECKING:  # onnx is an extra: the commands are listed without it
    from captum_lie_onnx.metadata import Preprocessing

_GROUPS = "translation_x,translation_y,rotation,scale,brightness"


class QuantizeMode(StrEnum):
    dynamic = "dynamic"
    static = "static"


class ReduceRange(StrEnum):
    auto = "auto"
    on = "on"
    off = "off"


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
    reduce_range: Annotated[
        ReduceRange,
        typer.Option(
            help="Weights of 7 bits in that variant, whose sums do not saturate on x86 CPUs "
            "without VNNI; auto: where this CPU is one."
        ),
    ] = ReduceRange.auto,
    mean: Annotated[
        str | None,
        typer.Option(
            help="Normalisation of a file that does not say its own, e.g. 0.485,0.456,0.406."
        ),
    ] = None,
    std: Annotated[str | None, typer.Option(help="The same, e.g. 0.229,0.224,0.225.")] = None,
    bgr: Annotated[
        bool, typer.Option("--bgr", help="A file that does not say so itself takes BGR.")
    ] = False,
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
        int | None,
        typer.Option(min=1, help="Threads of onnxruntime; by default as many as PyTorch takes."),
    ] = None,
    memory: Annotated[
        float,
        typer.Option(
            min=0.25, help="Memory limit of the file's process, and of the images, in GiB."
        ),
    ] = 4,
    load_seconds: Annotated[float, typer.Option(min=1, help="Time limit for loading.")] = 60,
    run_seconds: Annotated[float, typer.Option(min=1, help="Time limit for each batch.")] = 120,
    total_seconds: Annotated[
        float, typer.Option(min=1, help="Time limit for all that the file runs.")
    ] = 14400,
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
        from captum_lie_onnx.console import print_report
        from captum_lie_onnx.images import BUILTIN, Wanted, read_images
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
            total_seconds=total_seconds,
            allowed_domains=tuple(allow_domain or ()),
        )
        chosen = parse_groups(groups, o.InterpolationName.bilinear, None)
        names = list(METRICS) if metrics == "all" else parse_metrics(metrics)
        wanted = parse_size(size)
        preprocessing = _preprocessing(mean, std, bgr)
        if reference is not None:  # which may take long to load
            inspect(model, limits)
        other = _reference(reference, checkpoint)
        source = images if images == BUILTIN else Path(images)
        audited = model
        if quantize:
            with OnnxModel(model, limits=limits, assumed=preprocessing) as opened:
                expected = Wanted(
                    wanted or opened.input_size,
                    opened.channels,
                    max(batch_size, opened.fixed_batch or 1),
                    limits.memory,
                )
            calibration = read_images(source, expected, limit, max_unreadable).images
            out.mkdir(parents=True, exist_ok=True)
            audited = make_int8(
                model,
                out / f"{model.stem}.int8-{quantize.value}.onnx",
                quantize.value,
                calibration,
                reduce_range=_REDUCE[reduce_range],
                preprocessing=preprocessing,
                limits=limits,
            )
            other = other if other is not None else model
        report = audit(
            audited,
            source,
            other,
            derivative=derivative,
            preprocessing=preprocessing,
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

        (candidate,) = find_models(
            [model], pretrained=pretrained, checkpoint=checkpoint, mean=mean, std=std
        )
        module = candidate.model
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


_REDUCE: dict[ReduceRange, bool | Literal["auto"]] = {
    ReduceRange.auto: "auto",
    ReduceRange.on: True,
    ReduceRange.off: False,
}


def _preprocessing(mean: str | None, std: str | None, bgr: bool) -> Preprocessing | None:
    """What a file takes, if the options say anything of it."""
    from captum_lie_onnx.metadata import Preprocessing

    normalisation = parse_normalisation(mean, std)
    if normalisation is None and not bgr:
        return None
    means, stds = normalisation or (None, None)
    if means is not None and stds is not None and len(means) != len(stds):
        longest = max(len(means), len(stds))  # one number stands for all channels
        means, stds = (v * longest if len(v) == 1 else v for v in (means, stds))
    return Preprocessing(
        mean=None if means is None else tuple(means),
        std=None if stds is None else tuple(stds),
        channels="BGR" if bgr else "RGB",
        included=normalisation is None,
    )


def _reference(name: str | None, checkpoint: Path | None) -> nn.Module | Path | None:
    """Files by their endings, everything else is a model's name."""
    if name is None:
        return None
    if name.endswith((".onnx", ".json")):
        return Path(name)
    (candidate,) = find_models([name], checkpoint=checkpoint)
    return candidate.model.to(torch.device("cpu"))


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
