"""The command line: ``captum-lie demo`` and ``captum-lie measure``."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from captum_lie import __version__, examples
from captum_lie.groups import GROUP_NAMES, OneParameterGroup, get_groups
from captum_lie.measurement import UNTRAINED, Measurement, measure
from captum_lie.models import has_untrained_twin, load_model
from captum_lie.preprocessing import ImageFolder, Normalized
from captum_lie.report import render_json, write_reports
from captum_lie.resampling import Border, Interpolation

app = typer.Typer(
    help="Measure how far a vision model is from being equivariant, and which pixels are to blame.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
notes = Console(stderr=True)

#: What a user can mend: printed as one line, exit code 2, no traceback.
USER_ERRORS = (ValueError, TypeError, OSError, RuntimeError, AssertionError, LookupError)


#: Embedded images that the demo draws: galaxies, a launch tower, a cat's eye.
SHOWCASE = (131, 151, 161)


class InterpolationName(StrEnum):
    bilinear = "bilinear"
    central = "central"
    fourier = "fourier"


class BorderName(StrEnum):
    reflect = "reflect"
    circular = "circular"


class NormName(StrEnum):
    l2 = "l2"
    l1 = "l1"


Out = Annotated[Path, typer.Option(help="Folder for report.html, lee.csv and lee.json.")]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, ...; by default a GPU if there is one.")
]
BatchSize = Annotated[int, typer.Option(min=1, help="Images at a time.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the scrambled control tangents.")]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print JSON instead of a table (for programs).")
]
Scrambles = Annotated[
    int, typer.Option(min=0, help="Control tangents per image and group; 0: no relative LEE.")
]


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit


@app.command()
def demo(
    out: Out = Path("captum-lie-report"),
    n: Annotated[int, typer.Option("--n", min=1, help="Number of embedded images to use.")] = 128,
    device: Device = None,
    batch_size: BatchSize = 32,
    seed: Seed = 0,
    scrambles: Scrambles = 4,
    json: AsJson = False,
) -> None:
    """Measure the four embedded models on embedded photographs: no network, under a minute.

    Compares a strided CNN, its anti-aliased twin, a small ViT and a small MLP-Mixer under all ten
    groups, each beside its untrained twin, and draws which pixels are to blame.
    """
    with explained():
        images, _ = examples.load_images(n)
        models = with_controls({name: load_model(name) for name in examples.MODEL_NAMES})
        run(
            models,
            list(images.split(batch_size)),
            get_groups("all"),
            out,
            device=device,
            seed=seed,
            n_scrambles=scrambles,
            json=json,
            title="captum-lie demo",
            pictured=examples.load_images()[0][list(SHOWCASE)],
            settings={"images": f"builtin ({n})", "accuracy": examples.accuracy()},
        )


@app.command("measure")
def measure_command(
    model: Annotated[
        list[str],
        typer.Option(
            "--model",
            help="An embedded model (cnn, cnn_blur, vit, mixer), FILE.py:function that returns a "
            "torch.nn.Module, or a timm name. Repeat to compare several.",
        ),
    ],
    images: Annotated[
        str, typer.Option(help="Folder of images (searched recursively), or 'builtin'.")
    ] = "builtin",
    groups: Annotated[
        str, typer.Option(help=f"'all', or names with commas between: {', '.join(GROUP_NAMES)}.")
    ] = "all",
    out: Out = Path("captum-lie-report"),
    limit: Annotated[int | None, typer.Option(min=1, help="Use at most so many images.")] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="HxW",
            help="Scale and crop images to this size, for example 224x224; by default what the "
            "model expects, or else the images' own.",
        ),
    ] = None,
    mean: Annotated[
        str | None,
        typer.Option(
            help="Normalisation of a factory's model, e.g. 0.485,0.456,0.406 "
            "(groups act on the plain image in [0, 1])."
        ),
    ] = None,
    std: Annotated[str | None, typer.Option(help="Normalisation of a factory's model.")] = None,
    pretrained: Annotated[
        bool, typer.Option(help="Load trained weights (embedded models and adapters).")
    ] = True,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Weights for a timm model, instead of the hub's.")
    ] = None,
    control: Annotated[
        bool,
        typer.Option(
            help="Also measure the untrained architecture (a factory needs an argument "
            "'pretrained' for this)."
        ),
    ] = True,
    interpolation: Annotated[
        InterpolationName, typer.Option(help="How images are read between pixels.")
    ] = InterpolationName.bilinear,
    border: Annotated[BorderName | None, typer.Option(help="What lies outside the image.")] = None,
    norm: Annotated[
        NormName, typer.Option(help="l2: the paper's Eq. 4; l1: what its released script reports.")
    ] = NormName.l2,
    device: Device = None,
    batch_size: BatchSize = 16,
    internal_batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="At most so many images × tangents at a time, to save memory."),
    ] = None,
    seed: Seed = 0,
    scrambles: Scrambles = 8,
    pictures: Annotated[int, typer.Option(min=0, help="Images to draw in the report.")] = 3,
    json: AsJson = False,
) -> None:
    """Measure any model on any images.

    Examples:

      captum-lie measure --model cnn --model vit

      captum-lie measure --model resnet18 --images photos --groups rotation,scale

      captum-lie measure --model mymodel.py:build --images photos --size 224x224
    """
    with explained():
        rule: tuple[Interpolation, Border | None] = (
            interpolation.value,
            border.value if border else None,
        )
        chosen = get_groups(
            "all" if groups == "all" else [g.strip() for g in groups.split(",") if g.strip()],
            interpolation=rule[0],
            border=rule[1],
        )
        wanted = parse_size(size)
        normalisation = parse_normalisation(mean, std)

        def load(name: str, trained: bool) -> nn.Module:
            found = load_model(name, pretrained=trained, checkpoint=checkpoint if trained else None)
            return Normalized(found, *normalisation).eval() if normalisation else found

        models = {name: load(name, pretrained) for name in model}
        if control and pretrained:
            models = {
                label: m
                for name in model
                for label, m in (
                    (name, models[name]),
                    *([(name + UNTRAINED, load(name, False))] if has_untrained_twin(name) else []),
                )
            }
        batches = find_images(images, wanted or expected_size(models), batch_size, limit)
        run(
            models,
            batches,
            chosen,
            out,
            device=device,
            seed=seed,
            n_scrambles=scrambles,
            json=json,
            title=f"captum-lie: {', '.join(model)}",
            norm=norm.value,
            pictured=pictures,
            internal_batch_size=internal_batch_size,
            settings={
                "images": images,
                "interpolation": rule[0],
                "border": rule[1] or ("circular" if rule[0] == "fourier" else "reflect"),
                "norm": norm.value,
                "size": size or "as the model expects",
            },
        )
        skipped = getattr(batches, "skipped", {})
        if skipped and not json:
            notes.print(f"[yellow]{len(skipped)} unreadable files were left out.[/yellow]")


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
    **options: Any,
) -> None:
    """Measure, write the reports, print the table."""
    place = choose_device(device)
    out.mkdir(parents=True, exist_ok=True)  # rather now than after the work
    result = measure(
        {name: model.to(place) for name, model in models.items()},
        batches,
        groups,
        show_progress=True,
        settings={
            **settings,
            "device": str(place),
            "seed": options["seed"],
            "scrambles": options["n_scrambles"],
            "captum-lie": __version__,
            "torch": torch.__version__,
        },
        **options,
    )
    written = write_reports(result, out, title=title)
    if json:
        print(render_json(result))
    else:
        print_table(result)
        notes.print("Wrote " + ", ".join(str(path) for path in written), soft_wrap=True)


def print_table(result: Measurement) -> None:
    """LEE ± standard error, a row per group and a column per model; controls are in the files."""
    lee = result.table.set_index(["group", "model"])
    models = [m for m in dict.fromkeys(result.table["model"]) if not m.endswith(UNTRAINED)]
    table = Table(title="LEE ± standard error", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("group", no_wrap=True)
    for model in models:
        table.add_column(model, justify="right", no_wrap=True)
    for group in dict.fromkeys(result.table["group"]):
        cells = [lee.loc[(group, model)] for model in models]
        table.add_row(str(group), *(f"{c.lee:.2g} ± {c.stderr:.1g}" for c in cells))
    Console().print(table)
    for model, found in result.directions.items():
        Console().print(
            f"Worst affine motion of {model}: {found.describe()}", highlight=False, soft_wrap=True
        )


def with_controls(models: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """Embedded models, each followed by its untrained twin."""
    return {
        label: found
        for name, model in models.items()
        for label, found in ((name, model), (name + UNTRAINED, load_model(name, pretrained=False)))
    }


def find_images(
    images: str, size: tuple[int, int] | None, batch_size: int, limit: int | None
) -> Iterable[Tensor]:
    """Image batches from a folder, or the embedded ones."""
    if images != "builtin":
        return ImageFolder(Path(images), size, batch_size, limit)
    found, _ = examples.load_images(limit)
    if size is not None and size != tuple(found.shape[-2:]):
        found = nn.functional.interpolate(found, size, mode="bicubic", antialias=True).clamp(0, 1)
    return list(found.split(batch_size))


def expected_size(models: dict[str, nn.Module]) -> tuple[int, int] | None:
    """The input size that the models expect, if they say one; they must agree."""
    sizes = {name: getattr(m, "input_size", None) for name, m in models.items()}
    known = {size for size in sizes.values() if size is not None}
    if len(known) > 1:
        raise ValueError(f"The models expect different sizes {sizes}: measure them one by one.")
    return known.pop() if known else None


def parse_size(size: str | None) -> tuple[int, int] | None:
    if size is None:
        return None
    parts = size.lower().split("x")
    if not all(p.isdigit() and int(p) > 0 for p in parts) or len(parts) > 2:
        raise ValueError(f"--size takes HxW such as 224x224, or one number; got {size!r}.")
    return int(parts[0]), int(parts[-1])


def parse_normalisation(
    mean: str | None, std: str | None
) -> tuple[list[float], list[float]] | None:
    if mean is None and std is None:
        return None
    try:
        return (
            [float(v) for v in (mean or "0").split(",")],
            [float(v) for v in (std or "1").split(",")],
        )
    except ValueError as error:
        raise ValueError(
            f"--mean and --std take numbers with commas between; got {mean!r} and {std!r}."
        ) from error


def choose_device(device: str | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0]
        raise ValueError(f"Device {device!r} cannot be used: {reason}") from error
    return found


@contextmanager
def explained() -> Iterator[None]:
    """Errors that a user can mend become one line and exit code 2; warnings become notes."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_args, **_kwargs: notes.print(
            f"[yellow]Note:[/yellow] {message}", highlight=False, soft_wrap=True
        )
        try:
            yield
        except USER_ERRORS as error:
            notes.print(
                "[red]Error:[/red]", str(error), markup=True, highlight=False, soft_wrap=True
            )
            raise typer.Exit(2) from error


def main() -> None:
    """Entry point of the console script."""
    app()
