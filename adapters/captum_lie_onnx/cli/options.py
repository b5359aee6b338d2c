"""Options of these two commands, beside those of :mod:`captum_lie.extending.options`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from captum_lie.extending.compat import StrEnum

#: Groups of a command that names none.
GROUPS = "translation_x,translation_y,rotation,scale,brightness"


class QuantisationMode(StrEnum):
    dynamic = "dynamic"
    static = "static"


class ReduceRange(StrEnum):
    auto = "auto"
    on = "on"
    off = "off"


class PresetName(StrEnum):
    export = "export"
    quantized = "quantized"


File = Annotated[Path, typer.Argument(help="The ONNX file.", metavar="MODEL.onnx")]
Reference = Annotated[
    str | None,
    typer.Option(
        help="What the file should behave like: another .onnx file, the audit.json of an earlier "
        "audit, or a PyTorch model (an embedded one, FILE.py:function, or a timm name)."
    ),
]
Quantise = Annotated[
    QuantisationMode | None,
    typer.Option(help="Make the int8 variant and audit it against MODEL.onnx."),
]
Reduce = Annotated[
    ReduceRange,
    typer.Option(
        help="Weights of 7 bits in that variant, whose sums do not saturate on x86 CPUs without "
        "VNNI; auto: where this CPU is one."
    ),
]
Bgr = Annotated[bool, typer.Option("--bgr", help="A file that does not say so itself takes BGR.")]
SampledMetrics = Annotated[
    str, typer.Option(help="Sampling-based metrics with commas between; by default all.")
]
Samples = Annotated[
    int, typer.Option(min=2, help="Transformations per image of the sampled metrics.")
]
Preset = Annotated[
    PresetName | None,
    typer.Option(help="Thresholds to start from; 'quantized' with --quantize, else 'export'."),
]
ThresholdFile = Annotated[
    Path | None, typer.Option(help="TOML file with thresholds, such as [parity] max_relative.")
]
Threshold = Annotated[
    list[str] | None, typer.Option(help="NAME=VALUE, such as difference.lee=0.05. Repeatable.")
]
DerivativeFile = Annotated[
    Path | None,
    typer.Option(help="Graph of the Lie derivative; by default MODEL.lie.onnx if it is there."),
]
MaxUnreadable = Annotated[
    float, typer.Option(min=0, max=1, help="Largest share of images that may be unreadable.")
]
Threads = Annotated[
    int | None,
    typer.Option(min=1, help="Threads of onnxruntime; by default as many as PyTorch takes."),
]
Memory = Annotated[
    float,
    typer.Option(min=0.25, help="Memory limit of the file's process, and of the images, in GiB."),
]
LoadSeconds = Annotated[float, typer.Option(min=1, help="Time limit for loading.")]
RunSeconds = Annotated[float, typer.Option(min=1, help="Time limit for each batch.")]
TotalSeconds = Annotated[float, typer.Option(min=1, help="Time limit for all that the file runs.")]
AllowDomain = Annotated[
    list[str] | None,
    typer.Option(help="Accept operators of this domain beside the standard ones. Repeatable."),
]
WithDerivative = Annotated[
    bool,
    typer.Option(
        "--derivative", help="Also write the exact Lie derivative as OUT.lie.onnx (--groups)."
    ),
]
OutFile = Annotated[
    Path | None, typer.Option(help="The file to write; by default MODEL.onnx here.")
]
Opset = Annotated[int | None, typer.Option(help="ONNX opset; by default a recent one.")]
DynamicBatch = Annotated[bool, typer.Option(help="Let the batch size vary.")]
