"""Training on digits at random angles, from checkpoints where there are any."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_lie.errors import InvalidValueError
from captum_lie.penalty import LiePenalty
from captum_lie.results import DigitsScore, load, save
from captum_lie.results.codec import storable
from captum_lie.studies.digits.data import Digits
from captum_lie.studies.digits.evaluation import Evaluation
from captum_lie.studies.digits.turning import ROTATION, turned, uniform_degrees

#: Share of the loss below which a fall is none.
PLATEAU = 0.05


@dataclass(frozen=True)
class Training:
    """How to train.

    Attributes:
        epochs: passes over the training digits.
        batch_size: digits a step.
        learning_rate: at the beginning, of AdamW.
        patience: epochs without a lower training loss, by :data:`PLATEAU` at least, after which
            the rate is halved.
        angle: digits are turned by up to so many degrees, uniformly, anew in each epoch.
        penalty: strength of the rotation LEE in the loss; 0 for none.
        penalty_angle: the LEE is that of copies of the digits turned by up to so many degrees,
            without their labels; None for that of the labelled digits, from the same evaluation.
        seed: of the order and the angles.
        score_every: epochs between scores; the last one is scored in any case.
    """

    epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 1e-3
    patience: int = 2
    angle: float = 180.0
    penalty: float = 0.0
    penalty_angle: float | None = None
    seed: int = 0
    score_every: int = 1

    def scored(self, epoch: int) -> bool:
        """Whether the model is scored after so many epochs."""
        return epoch % self.score_every == 0 or epoch == self.epochs


@dataclass(frozen=True)
class Checkpoint:
    """All that a training needs to go on after an epoch as if it had never stopped.

    Attributes:
        training: what it was, but for the number of epochs, to tell another one's checkpoint.
        epoch: that it was written after.
        weights, optimiser, schedule: their state dicts.
        scores: so far.
    """

    training: dict[str, Any]
    epoch: int
    weights: dict[str, Tensor]
    optimiser: dict[str, Any]
    schedule: dict[str, Any]
    scores: tuple[DigitsScore, ...]


storable(Checkpoint)

#: What may change where a training goes on.
LATER = ("epochs", "score_every")


def train(
    model: nn.Module,
    digits: Digits,
    training: Training,
    evaluation: Evaluation,
    *,
    checkpoint: Path,
    identity: Mapping[str, object],
    after: Callable[[int, DigitsScore], None] = lambda _epoch, _score: None,
) -> tuple[DigitsScore, ...]:
    """Train a model in place, on from its checkpoint if that is there.

    Weights, angles and order of each epoch follow from the seed and the epoch alone, so a training
    that was stopped gives the same numbers as one that was not.

    Args:
        evaluation: scores the model before training, and after epochs that are to be scored.
        checkpoint: the file, written whole or not at all after each epoch.
        identity: what else the checkpoint must have been written for, such as the model's name.
        after: is told the epoch and the last score that is known, at first and after each epoch.

    Raises:
        ValueError: the checkpoint is another training's.
        DamagedFileError: it cannot be read.
    """
    described = {k: v for k, v in asdict(training).items() if k not in LATER} | dict(identity)
    optimiser = torch.optim.AdamW(model.parameters(), lr=training.learning_rate)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimiser, factor=0.5, patience=training.patience, threshold=PLATEAU
    )
    done = 0
    scores: tuple[DigitsScore, ...]
    if checkpoint.is_file():
        done, scores = _restore(checkpoint, described, model, optimiser, schedule)
    else:
        first = evaluation(model.eval(), epoch=0, loss=None, learning_rate=training.learning_rate)
        scores = (first,)
    after(done, scores[-1])
    for epoch in range(done + 1, training.epochs + 1):
        loss = train_epoch(model, digits, training, optimiser, epoch)
        schedule.step(loss)
        rate = float(optimiser.param_groups[0]["lr"])
        if training.scored(epoch):
            score = evaluation(model.eval(), epoch=epoch, loss=loss, learning_rate=rate)
            scores = (*scores, score)
        state = Checkpoint(
            training=described,
            epoch=epoch,
            weights=model.state_dict(),
            optimiser=optimiser.state_dict(),
            schedule=schedule.state_dict(),
            scores=scores,
        )
        save(state, checkpoint)
        after(epoch, scores[-1])
    return tuple(score for score in scores if score.epoch <= training.epochs)


def train_epoch(
    model: nn.Module,
    digits: Digits,
    training: Training,
    optimiser: torch.optim.Optimizer,
    epoch: int,
) -> float:
    """One pass over the digits; the mean of the loss."""
    model.train()
    seed = training.seed * 1_000_003 + epoch
    generator = torch.Generator().manual_seed(seed)
    device = next(model.parameters()).device
    penalty = LiePenalty(ROTATION)
    order = torch.randperm(len(digits.train_labels), generator=generator)
    total = 0.0
    with _seeded(seed, device):
        # Batches of about one size: of a last one with a single image there are no statistics.
        for chosen in order.tensor_split(math.ceil(len(order) / training.batch_size)):
            images, labels = digits.train_images[chosen], digits.train_labels[chosen].to(device)
            angle = 0.0 if digits.rotated else training.angle
            shown = digits.fit(_turned(images, angle, generator)).to(device)
            if not training.penalty:
                loss = F.cross_entropy(model(shown), labels)
            elif training.penalty_angle is None:
                logits, lee = penalty.with_output(model, shown)
                loss = F.cross_entropy(logits, labels) + training.penalty * lee
            else:
                copies = digits.fit(_turned(images, training.penalty_angle, generator)).to(device)
                loss = F.cross_entropy(model(shown), labels)
                loss = loss + training.penalty * penalty(model, copies)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item() * len(chosen)
    return total / len(order)


def _turned(images: Tensor, angle: float, generator: torch.Generator) -> Tensor:
    """Each image by its own angle, up to so many degrees either way."""
    return turned(images, uniform_degrees(len(images), angle, generator)) if angle else images


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Dropout and the like draw from this seed; the random state outside stays as it was."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _restore(
    path: Path,
    described: dict[str, Any],
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.ReduceLROnPlateau,
) -> tuple[int, tuple[DigitsScore, ...]]:
    state = load(path, Checkpoint)
    differing = sorted(
        k for k in {*described, *state.training} if described.get(k) != state.training.get(k)
    )
    if differing:
        raise InvalidValueError(
            f"{path} is the checkpoint of another training: {', '.join(differing)} differ. "
            "Give another --out, or remove it."
        )
    model.load_state_dict(state.weights)
    optimiser.load_state_dict(
        {
            "state": {int(k): v for k, v in state.optimiser["state"].items()},
            "param_groups": state.optimiser["param_groups"],
        }
    )
    schedule.load_state_dict(state.schedule)
    return state.epoch, state.scores
