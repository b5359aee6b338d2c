"""Output directions along which to differentiate: a few outputs exactly, random signs on the rest.

For any linear map M, ``Σ_o ‖Mᵀ e_o‖²`` over all K outputs is the mean of ``‖Mᵀ u‖²`` over random
signs u. Derivatives of probabilities live on few classes: the most probable ones are taken exactly,
and signs are spent on the others only. Which ones is decided by the outputs alone, never by what
the signs give, so that the sum stays unbiased.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from captum_lie.errors import InvalidValueError

#: Up to so many outputs all are taken exactly.
ALL_EXACT = 32
#: Share of the probes spent on the most probable outputs, one each.
TOP_SHARE = 0.5


@dataclass(frozen=True)
class Probes:
    """How many directions of the output to look along, and which.

    Args:
        n: backward passes to spend; None for as many as it takes (all outputs, or what the
            tolerance needs).
        tolerance: stop as soon as standard errors are below this; None for never.
        seed: with an example's index in the data it determines its random signs.

    Raises:
        ValueError: fewer than 4 probes, a tolerance that is not positive, a negative seed.

    Example:
        >>> Probes(8)
        Probes(n=8, tolerance=None, seed=0)
    """

    n: int | None = None
    tolerance: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n is not None and self.n < 4:  # half are random signs: two give a standard error
            raise InvalidValueError(
                f"n_probes must be at least 4 to give a standard error; got {self.n}."
            )
        if self.tolerance is not None and not self.tolerance > 0:
            raise InvalidValueError(f"tolerance must be positive; got {self.tolerance}.")
        if self.seed < 0:
            raise InvalidValueError(f"seed must not be negative; got {self.seed}.")


@dataclass(frozen=True)
class Directions:
    """Which directions of an output ``[N, K]`` to look along.

    Attributes:
        order: the outputs of each example, the most probable first, ``[N, K]``.
        n_exact: so many of them are taken exactly.
        n_signs: random signs on the others; 0 if there are none.
        seed, first_index: determine each example's signs, however examples are batched.
        drawn_as: the integers that the signs are drawn as, which decides the draws.

    Example:
        >>> chosen = directions(torch.randn(2, 1000), Probes(8))
        >>> chosen.n_exact, chosen.n_signs, len(list(chosen))
        (4, 4, 8)
        >>> directions(torch.randn(2, 10), Probes(8)).n_signs
        0
    """

    order: Tensor
    n_exact: int
    n_signs: int
    seed: int = 0
    first_index: int = 0
    drawn_as: type[np.signedinteger] = np.int8

    def exact(self) -> Iterator[Tensor]:
        """One-hot directions ``[N, K]``, the most probable output first."""
        for rank in range(self.n_exact):
            zeros = torch.zeros(self.order.shape, device=self.order.device)
            yield zeros.scatter_(1, self.order[:, rank : rank + 1], 1.0)

    def signs(self) -> Iterator[Tensor]:
        """Random signs on the other outputs, ``[N, K]``, each example's from its own generator."""
        others = self.others()
        n, outputs = others.shape
        generators = [np.random.default_rng([self.seed, self.first_index + i]) for i in range(n)]
        for _ in range(self.n_signs):
            bits = [g.integers(0, 2, outputs, dtype=self.drawn_as) for g in generators]
            yield others * torch.from_numpy(2.0 * np.stack(bits) - 1).to(others)

    def others(self) -> Tensor:
        """One for each output that is not taken exactly, else zero, ``[N, K]``."""
        ones = torch.ones(self.order.shape, device=self.order.device)
        return ones.scatter_(1, self.order[:, : self.n_exact], 0.0)

    def __iter__(self) -> Iterator[Tensor]:
        yield from self.exact()
        yield from self.signs()


def directions(output: Tensor, probes: Probes, *, first_index: int = 0) -> Directions:
    """The directions to look along: all outputs up to 32 of them, else as many as the probes.

    Half of the probes go to the most probable outputs, half are random signs.

    Args:
        output: ``[N, K]``.
        probes: None of them for all outputs.
    """
    outputs = output.shape[1]
    order = by_probability(output)
    if probes.n is None or outputs <= max(ALL_EXACT, probes.n):
        return Directions(order, outputs, 0, probes.seed, first_index)
    top = int(probes.n * TOP_SHARE)
    return Directions(order, top, probes.n - top, probes.seed, first_index)


def by_probability(output: Tensor) -> Tensor:
    """Indices of the outputs ``[N, K]`` of each example, the largest output first."""
    return output.detach().argsort(dim=1, descending=True, stable=True)
