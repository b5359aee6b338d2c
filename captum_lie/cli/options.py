"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from captum_lie._compat import StrEnum
from captum_lie.core.groups import GROUP_NAMES
from captum_lie.metrics import METRIC_NAMES


class InterpolationName(StrEnum):
    bilinear = "bilinear"
    central = "central"
    fourier = "fourier"


class BorderName(StrEnum):
    reflect = "reflect"
    circular = "circular"


_MODELS = (
    "An embedded model (cnn, cnn_blur, vit, mixer), FILE.py:function that returns a "
    "torch.nn.Module, a timm name (timm:NAME, hf-hub:USER/NAME), or trained weights from the "
    "registry (imagenet:efficientnet_lite0, 1, 2)."
)

Models = Annotated[
    list[str],
    typer.Option(
        "--model",
        metavar="[LABEL=]NAME[@CHECKPOINT]",
        help=f"{_MODELS} Repeat to compare several, each at its own input size.",
    ),
]
Model = Annotated[str, typer.Option("--model", metavar="NAME", help=_MODELS)]
Images = Annotated[
    str,
    typer.Option(
        help="'builtin'; a folder of images (searched recursively; one subfolder a class, where "
        "they are labelled); a .txt file that names one a line; a stack [N, C, H, W] as .npy, .npz "
        "or .pt (keys images, labels); or FILE.py:function that returns a torch data set."
    ),
]
Groups = Annotated[
    str, typer.Option(help=f"'all', or names with commas between: {', '.join(GROUP_NAMES)}.")
]
Limit = Annotated[int | None, typer.Option(min=1, help="Use at most so many images.")]
Size = Annotated[
    str | None,
    typer.Option(
        metavar="HxW",
        help="Scale and crop images to this size for all models, for example 224x224; by default "
        "what each model expects, or else the images' own.",
    ),
]
Channels = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="1: show grey images; 3: colours; by default what each model's first layer says.",
    ),
]
Mean = Annotated[
    str | None,
    typer.Option(
        help="Normalisation of a factory's model, or of a file that does not say its own, e.g. "
        "0.485,0.456,0.406 (groups act on the plain image in [0, 1])."
    ),
]
Std = Annotated[str | None, typer.Option(help="The same, e.g. 0.229,0.224,0.225.")]
Pretrained = Annotated[
    bool, typer.Option(help="Load trained weights (embedded models and adapters).")
]
Checkpoint = Annotated[
    Path | None,
    typer.Option(
        help="Weights for the only model, instead of its own; with several, --model NAME@FILE."
    ),
]
Metrics = Annotated[
    str,
    typer.Option(
        help="'lee' (always measured), or names with commas between: lee, "
        f"{', '.join(METRIC_NAMES)}. Written to metrics.csv."
    ),
]
Interpolate = Annotated[InterpolationName, typer.Option(help="How images are read between pixels.")]
BorderRule = Annotated[BorderName | None, typer.Option(help="What lies outside the image.")]
Out = Annotated[Path, typer.Option(help="Folder for the report and its data files.")]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, ...; by default a GPU if there is one.")
]
BatchSize = Annotated[int, typer.Option(min=1, help="Images at a time.")]
InternalBatchSize = Annotated[
    int | None,
    typer.Option(min=1, help="At most so many images × tangents at a time, to save memory."),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of everything that is drawn at random.")]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print JSON instead of a table (for programs).")
]
Relative = Annotated[bool, typer.Option(help="Also measure the control, for the relative LEE.")]
Probes = Annotated[
    int,
    typer.Option(
        min=4, help="Backward passes of the control for models with more than 32 outputs."
    ),
]
Samples = Annotated[
    int, typer.Option(min=1, help="Transformations per image of the sampled metrics.")
]
