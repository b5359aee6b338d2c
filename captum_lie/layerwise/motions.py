"""Which motions the sampled baselines of layers use, and which of them each image gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import pi
from typing import TypedDict

from captum_lie.metrics.motions import FractionalShift, IntegerShift, Motion, Turn
from captum_lie.metrics.sampling import Sampling
from captum_lie.metrics.sinc import DEFAULT_KERNEL, SincBorder, SincKernel
from captum_lie.results.metrics import Array

METRICS: tuple[str, ...] = ("eq_t", "eq_t_frac", "eq_r")


class MotionsOptions(TypedDict, total=False):
    """Keywords of :class:`Motions`."""

    max_shift: float
    max_angle: float
    border: SincBorder
    kernel: SincKernel
    n_samples: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class Motions:
    """See :meth:`captum_lie.layerwise.LayerwiseSampledError.evaluate`."""

    max_shift: float = 0.125
    max_angle: float = pi
    border: SincBorder = "reflect"
    kernel: SincKernel = DEFAULT_KERNEL
    n_samples: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        Sampling(self.n_samples, self.seed)  # says what is wrong with them

    def of(self, metrics: Sequence[str]) -> dict[str, Motion]:
        """The motion behind each metric."""
        known: dict[str, Motion] = {
            "eq_t": IntegerShift(max_shift=self.max_shift, border=self.border, least=1),
            "eq_t_frac": FractionalShift(
                max_shift=self.max_shift, border=self.border, kernel=self.kernel
            ),
            "eq_r": Turn(max_angle=self.max_angle, border=self.border, kernel=self.kernel),
        }
        return {name: known[name] for name in metrics}

    def draws(self, metric: str, n_draws: int, index: Array) -> Array:
        """What tells the motions of some examples ``[n]``, ``[n, K, d]``.

        Two numbers are drawn for each motion, that along rows first, whatever a metric takes of
        them.
        """
        drawn = Sampling(self.n_samples, self.seed).uniform(f"layer_{metric}", index, 2)
        return drawn[..., :n_draws][..., ::-1]
