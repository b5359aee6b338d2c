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
from torch import nn
from tqdm import tqdm

from captum_lie.errors import InvalidValueError
from captum_lie.examples.models import MODEL_NAMES, build
from captum_lie.results import DigitsRun, DigitsScore, DigitsStudy, Environment
from captum_lie.studies.digits.data import CLASSES, Digits, read_digits
from captum_lie.studies.digits.evaluation import Evaluation
from captum_lie.studies.digits.fitting import fitted_digits, with_new_head
from captum_lie.studies.digits.training import Training, train
from captum_lie.studies.specs import ModelSpec, load


@dataclass(frozen=True)
class DigitsOptions:
    """What to train, beside how.

    Attributes:
        training: the rest; its penalty and seed are replaced by those below.
        penalties: strengths, one training each.
        seeds: one training each.
        pretrained: begin with the model's own weights, but for its new classifier.
        limit: at most so many digits to train on, and so many to test with.
        device: to train on.
        show_progress: show a bar for each training.
    """

    training: Training = field(default_factory=Training)
    penalties: Sequence[float] = (0.0,)
    seeds: Sequence[int] = (0,)
    pretrained: bool = True
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
    digits = _limited(read_digits(source), options.limit)
    digits = fitted_digits(load(spec, pretrained=options.pretrained), digits)
    evaluation = Evaluation(digits)
    settings: dict[str, float | int | str] = {
        "train_digits": len(digits.train_labels),
        "test_digits": len(digits.test_labels),
        "pretrained": options.pretrained and not spec.random,
        "rotated_already": digits.rotated,
    }
    identity = {"model": f"{spec.name}@{spec.checkpoint}", "data": source} | settings
    runs = []
    for penalty in dict.fromkeys(float(p) for p in options.penalties):
        for seed in dict.fromkeys(options.seeds):
            training = replace(options.training, penalty=penalty, seed=seed)
            model = model_of(spec, digits, pretrained=options.pretrained, seed=seed)
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


def model_of(spec: ModelSpec, digits: Digits, *, pretrained: bool, seed: int) -> nn.Module:
    """The model with ten outputs, before training.

    An embedded model without its weights is built from the seed. Of any other the seed decides the
    new classifier alone.

    Args:
        digits: fitted to it.
    """
    if spec.name in MODEL_NAMES and (spec.random or not pretrained):
        return build(spec.name, CLASSES, seed=seed)
    model = load(spec, pretrained=pretrained)
    return with_new_head(spec.label, model, digits.train_images, seed=seed)


def _limited(digits: Digits, limit: int | None) -> Digits:
    return Digits(
        digits.train_images[:limit], digits.train_labels[:limit],
        digits.test_images[:limit], digits.test_labels[:limit], digits.rotated,
    )  # fmt: skip


def _show(bar: tqdm[NoReturn], score: DigitsScore) -> None:
    bar.update(score.epoch - bar.n)
    bar.set_postfix(error=f"{score.error:.1%}", lee=f"{score.lee:.2g}")
