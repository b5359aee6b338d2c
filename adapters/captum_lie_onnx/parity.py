"""Do two backends give the same scores for the same images?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from captum_lie.errors import InvalidValueError

Array = NDArray[Any]


@dataclass(frozen=True)
class Parity:
    """Differences of scores ``[N, K]``, candidate − reference.

    Relative differences are in units of the largest absolute score of the reference, since scores
    near zero would make any difference look large.

    Attributes:
        max_absolute, mean_absolute, p99_absolute: over all images and classes.
        max_relative, mean_relative, p99_relative: the same over the largest score.
        top1_agreement: share of images with the same first class.
        top5_agreement: mean share of the reference's five first classes that are also among the
            candidate's (of all classes but one, where there are fewer than six).
        per_image: largest absolute difference of each image, ``[N]``.
    """

    max_absolute: float
    mean_absolute: float
    p99_absolute: float
    max_relative: float
    mean_relative: float
    p99_relative: float
    top1_agreement: float
    top5_agreement: float
    per_image: Array

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "per_image": self.per_image.tolist()}


def parity(candidate: Array, reference: Array) -> Parity:
    """Compare scores ``[N, K]`` of the same images.

    Raises:
        ValueError: different shapes.

    Example:
        >>> reference = np.array([[1.0, 2.0], [4.0, 3.0]])
        >>> result = parity(reference + [[0.0, 0.5], [0.0, 0.0]], reference)
        >>> result.max_absolute, result.max_relative, result.top1_agreement
        (0.5, 0.125, 1.0)
    """
    if candidate.shape != reference.shape:
        raise InvalidValueError(
            f"The scores differ in shape: {candidate.shape} against the reference's "
            f"{reference.shape}. Do both models tell the same classes apart?"
        )
    difference = np.abs(candidate.astype(np.float64) - reference)
    largest = float(np.abs(reference).max()) or 1.0
    absolute = {
        "max": float(difference.max()),
        "mean": float(difference.mean()),
        "p99": float(np.percentile(difference, 99)),
    }
    k = max(1, min(5, reference.shape[1] - 1))
    return Parity(
        **{f"{name}_absolute": value for name, value in absolute.items()},
        **{f"{name}_relative": value / largest for name, value in absolute.items()},
        top1_agreement=float((candidate.argmax(1) == reference.argmax(1)).mean()),
        top5_agreement=_shared(top_classes(candidate, k), top_classes(reference, k)),
        per_image=difference.max(1),
    )


def top_classes(scores: Array, k: int) -> Array:
    """The k classes with the highest scores, ``[N, k]``, best first; ties by class number."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def _shared(candidate: Array, reference: Array) -> float:
    return float((candidate[:, :, None] == reference[:, None]).any(1).mean())
