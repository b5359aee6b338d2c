"""How well a model tells digits, and how much it minds their being turned."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from captum_lie.attribution import LocalEquivarianceError
from captum_lie.results import DigitsScore
from captum_lie.studies.digits.data import Digits, Fit
from captum_lie.studies.digits.turning import ROTATION, turned, uniform_degrees

#: Degrees, of either sign.
ANGLES = (0.0, 15.0, 30.0, 60.0, 90.0, 180.0)

#: Test digits on which LEE and its control are measured; errors are those of all.
LEE_IMAGES = 256

BATCH_SIZE = 128

#: Of the angles of the test digits, the same for all models.
TEST_SEED = 1


class Evaluation:
    """Scores models on the same test digits, at the same angles each time.

    Args:
        digits: only the test digits are used.
        angle: they are turned by up to so many degrees, uniformly, unless they are already.
        angles: degrees at which errors and changes are measured, of the test digits as they are.
    """

    def __init__(
        self, digits: Digits, *, angle: float = 180.0, angles: Sequence[float] = ANGLES
    ) -> None:
        self.fit, self.labels, self.angles = digits.fit, digits.test_labels, tuple(angles)
        self.images = self.rotated = digits.test_images
        if angle and not digits.rotated:
            generator = torch.Generator().manual_seed(TEST_SEED)
            degrees = uniform_degrees(len(self.labels), angle, generator)
            self.rotated = turned(self.images, degrees)
        self.turned = {a: _turned_either_way(self.images, a) for a in self.angles if a}

    def __call__(
        self, model: nn.Module, *, epoch: int, loss: float | None, learning_rate: float
    ) -> DigitsScore:
        """The score of a model in evaluation mode."""
        upright = probabilities(model, self.images, self.fit)
        errors, changes = [], []
        for angle in self.angles:
            ways = self.turned.get(angle, [])
            found = [probabilities(model, way, self.fit) for way in ways] or [upright]
            errors.append(sum(error_of(p, self.labels) for p in found) / len(found))
            changes.append(sum(float((p - upright).square().mean()) for p in found) / len(found))
        score = LocalEquivarianceError(model)
        first = self.fit(self.rotated[:LEE_IMAGES]).split(BATCH_SIZE)
        lee = score.collect(first, ROTATION, relative=True)
        upright_lee = score.collect(self.fit(self.images[:LEE_IMAGES]).split(BATCH_SIZE), ROTATION)
        return DigitsScore(
            epoch=epoch,
            loss=loss,
            learning_rate=learning_rate,
            error=error_of(probabilities(model, self.rotated, self.fit), self.labels),
            errors=tuple(errors),
            changes=tuple(changes),
            lee=lee.mean.item(),
            lee_stderr=lee.stderr.item(),
            relative_lee=lee.relative.item(),
            relative_stderr=lee.relative_stderr.item(),
            upright_lee=upright_lee.mean.item(),
        )


def probabilities(model: nn.Module, images: Tensor, fit: Fit) -> Tensor:
    """Probabilities of the classes, ``[N, K]``, on the CPU; images of eight bits are scaled."""
    device = next(model.parameters()).device
    parts = []
    with torch.no_grad():
        for part in images.split(BATCH_SIZE):
            shown = fit(part / 255 if part.dtype == torch.uint8 else part)
            parts.append(model(shown.to(device)).softmax(1).cpu())
    return torch.cat(parts)


def error_of(outputs: Tensor, labels: Tensor) -> float:
    """Share of outputs ``[N, K]`` whose largest is not the label's.

    Example:
        >>> error_of(torch.tensor([[0.9, 0.1], [0.8, 0.2]]), torch.tensor([0, 1]))
        0.5
    """
    return float((outputs.argmax(1) != labels).double().mean())


def _turned_either_way(images: Tensor, degrees: float) -> list[Tensor]:
    """Images turned to the left and to the right, in eight bits to save memory."""
    ways = [turned(images, torch.tensor([angle])) for angle in (degrees, -degrees)]
    return [(way * 255).round().to(torch.uint8) for way in ways]
