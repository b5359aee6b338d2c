"""Which random transformations an example gets, however examples are batched."""

from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32

import numpy as np

from captum_lie.errors import InvalidValueError
from captum_lie.results.metrics import Array


@dataclass(frozen=True)
class Sampling:
    """How many transformations an example gets, and from which seed.

    An example's draws depend on what they are for, the seed and its position in the data alone:
    backends and batch sizes see the same ones. What a draw means, and up to where it reaches, is
    the motion's to say (:mod:`captum_lie.metrics.motions`).

    Args:
        n_samples: transformations of each example, K.
        seed: not negative.

    Raises:
        ValueError: no transformation, or a negative seed.

    Example:
        >>> sampling = Sampling(3, seed=1)
        >>> whole = sampling.uniform("eq_t", np.arange(10), 2)
        >>> whole.shape, bool((sampling.uniform("eq_t", np.array([7]), 2)[0] == whole[7]).all())
        ((10, 3, 2), True)
    """

    n_samples: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        self.require(1)
        if self.seed < 0:
            raise InvalidValueError(f"seed must not be negative; got {self.seed}.")

    def require(self, least: int) -> None:
        """Raise ``ValueError`` if there are fewer transformations than a metric needs."""
        if self.n_samples < least:
            raise InvalidValueError(f"n_samples must be at least {least}; got {self.n_samples}.")

    def uniform(self, purpose: str, index: Array, n_draws: int) -> Array:
        """Numbers from [-1, 1) for each transformation of the examples ``[n]``, ``[n, K, d]``."""
        shape = (self.n_samples, n_draws)
        return np.stack([g.uniform(-1, 1, shape) for g in self._generators(purpose, index)])

    def whole(self, purpose: str, index: Array, n_draws: int, reach: int) -> Array:
        """Whole numbers from -reach to reach, likewise."""
        shape = (self.n_samples, n_draws)
        return np.stack(
            [
                g.integers(-reach, reach, shape, endpoint=True)
                for g in self._generators(purpose, index)
            ]
        )

    def _generators(self, purpose: str, index: Array) -> list[np.random.Generator]:
        tag = crc32(purpose.encode())
        return [np.random.default_rng([self.seed, tag, int(i)]) for i in index]
