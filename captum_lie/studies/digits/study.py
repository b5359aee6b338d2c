"""Rotated digits: a model trained with and without a rotation penalty, over several seeds.

After Gruver et al., arXiv 2210.02984, App. D.6.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NoReturn

import torch
from tqdm import tqdm

from captum_lie.errors import InvalidValueError
from captum_lie.results import DigitsRun, DigitsScore, DigitsStudy, Environment
from captum_lie.studies.digits.data import read_digits
from captum_lie.studies.digits.evaluation import Evaluation
from captum_lie.studies.digits.fitting import fit_of, model_of
from captum_lie.studies.digits.training import Training, train
from captum_lie.studies.specs import ModelSpec, load


@dataclass(frozen=True)
class DigitsOptions:
    """What to train, beside how.

    Attributes:
        training: the rest; its penalty and seed are replaced by those below.
        penalties: strengths, one training each.
        seeds: one training each.
        test_angle: test digits are turned by up to so many degrees; None for as in training.
        pretrained: begin with the model's own weights, but for its new classifier.
        size: ``(height, width)`` to scale digits to, instead of the model's own.
        limit: at most so many digits to train on, and so many to test with.
        device: to train on.
        show_progress: show a bar for each training.
    """

    training: Training = field(default_factory=Training)
    penalties: Sequence[float] = (0.0,)
    seeds: Sequence[int] = (0,)
    test_angle: float | None = None
    pretrained: bool = True
    size: tuple[int, int] | None = None
    limit: int | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    show_progress: bool = False


def rotated_digits(
    spec: ModelSpec, source: str, folder: Path, options: DigitsOptions
) -> DigitsStudy:
    """Train a model on digits with each penalty and seed, and score it epoch by epoch.

    Args:
        spec: the model; an embedded one without its weights has those of the seed.
        source: for :func:`captum_lie.studies.digits.data.read_digits`.
        folder: for the checkpoints; trainings that are there go on.

    Raises:
        ValueError: digits or model cannot be had, or a checkpoint is another training's.
    """
    if not options.penalties or not all(0 <= p < float("inf") for p in options.penalties):
        raise InvalidValueError(
            f"Penalties must be 0 or positive numbers; got {list(options.penalties)}."
        )
    fit = fit_of(load(spec, pretrained=False), options.size)
    digits = replace(read_digits(source).limited(options.limit), fit=fit)
    angle = options.training.angle if options.test_angle is None else options.test_angle
    evaluation = Evaluation(digits, angle=angle)
    settings: dict[str, float | int | str | None] = {
        "test_angle": angle,
        "train_digits": len(digits.train_labels),
        "test_digits": len(digits.test_labels),
        "pretrained": options.pretrained and not spec.random,
        "rotated_already": digits.rotated,
        "size": "x".join(map(str, fit.size or digits.train_images.shape[-2:])),
    }
    identity = {"model": f"{spec.name}@{spec.checkpoint}", "data": source} | settings
    runs = []
    for penalty in dict.fromkeys(float(p) for p in options.penalties):
        for seed in dict.fromkeys(options.seeds):
            training = replace(options.training, penalty=penalty, seed=seed)
            model = model_of(
                spec, digits, size=options.size, pretrained=options.pretrained, seed=seed
            )
            name = f"penalty-{penalty:g}-seed-{seed}"
            with tqdm(desc=name, total=training.epochs, unit="epoch",
                      disable=not options.show_progress) as bar:  # fmt: skip
                scores = train(
                    model.to(options.device),
                    digits,
                    training,
                    evaluation,
                    checkpoint=folder / f"{name}.safetensors",
                    identity=identity,
                    after=partial(_show, bar),
                )
            runs.append(DigitsRun(penalty, seed, scores))
    plain = {k: v for k, v in asdict(options.training).items() if k not in ("penalty", "seed")}
    environment = Environment.here(options.device)
    return DigitsStudy(
        spec.label, source, evaluation.angles, tuple(runs), plain | settings, environment
    )


def _show(bar: tqdm[NoReturn], epoch: int, score: DigitsScore) -> None:
    bar.update(epoch - bar.n)
    bar.set_postfix(error=f"{score.error:.1%}", lee=f"{score.lee:.2g}")
