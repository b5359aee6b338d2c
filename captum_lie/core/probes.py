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

#: Up to so many outputs all are taken exactly.
ALL_EXACT = 32
#: Share of the probes spent on the most probable outputs, one each.
TOP_SHARE = 0.5


@dataclass(frozen=True)
class Directions:
    """Which directions of an output ``[N, K]`` to look along.

    Attributes:
        order: the outputs of each example, the most probable first, ``[N, K]``.
        n_exact: so many of them are taken exactly.
        n_signs: random signs on the others; 0 if there are none.
        seed, first_index: determine each example's signs, however examples are batched.

    Example:
        >>> found = directions(torch.randn(2, 1000), n_probes=8)
        >>> found.n_exact, found.n_signs, len(list(found))
        (4, 4, 8)
        >>> directions(torch.randn(2, 10), n_probes=8).n_signs
        0
    """

    order: Tensor
    n_exact: int
    n_signs: int
    seed: int = 0
    first_index: int = 0

    def exact(self) -> Iterator[Tensor]:
        """One-hot directions ``[N, K]``, the most probable output first."""
        for rank in range(self.n_exact):
            zeros = torch.zeros(self.order.shape, device=self.order.device)
            yield zeros.scatter_(1, self.order[:, rank : rank + 1], 1.0)

    def signs(self) -> Iterator[Tensor]:
        """Random signs on the other outputs, ``[N, K]``."""
        others = self.others()
        n, outputs = others.shape
        stream = random_signs(n, outputs, self.seed, self.first_index)
        for _ in range(self.n_signs):
            yield others * next(stream).to(others)

    def others(self) -> Tensor:
        """One for each output that is not taken exactly, else zero, ``[N, K]``."""
        ones = torch.ones(self.order.shape, device=self.order.device)
        return ones.scatter_(1, self.order[:, : self.n_exact], 0.0)

    def __iter__(self) -> Iterator[Tensor]:
        yield from self.exact()
        yield from self.signs()


def directions(output: Tensor, n_probes: int, *, seed: int = 0, first_index: int = 0) -> Directions:
    """The directions to look along: all outputs up to 32 of them, else ``n_probes``.

    Args:
        output: ``[N, K]``.
        n_probes: half of them go to the most probable outputs, half are random signs.
    """
    outputs = output.shape[1]
    order = by_probability(output)
    if outputs <= max(ALL_EXACT, n_probes):
        return Directions(order, outputs, 0, seed, first_index)
    top = int(n_probes * TOP_SHARE)
    return Directions(order, top, n_probes - top, seed, first_index)


def by_probability(output: Tensor) -> Tensor:
    """Indices of the outputs ``[N, K]`` of each example, the largest output first."""
    return output.detach().argsort(dim=1, descending=True, stable=True)


def random_signs(n: int, outputs: int, seed: int, first_index: int) -> Iterator[Tensor]:
    """Random signs ``[n, outputs]`` without end, each example's from its own generator."""
    generators = [np.random.default_rng([seed, first_index + i]) for i in range(n)]
    while True:
        drawn = [g.integers(0, 2, outputs, dtype=np.int8) for g in generators]
        yield torch.from_numpy(2.0 * np.stack(drawn) - 1)
