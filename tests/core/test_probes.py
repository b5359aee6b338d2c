"""Probes: which directions of an output are looked along, and that their draws stay as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from captum_lie.core.probes import Directions, Probes, by_probability, directions
from captum_lie.core.spectral_control import spectral_control


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"n": 3}, "n_probes must be at least 4"),
        ({"tolerance": 0.0}, "tolerance must be positive"),
        ({"tolerance": float("nan")}, "tolerance must be positive"),
        ({"seed": -1}, "seed must not be negative"),
    ],
)
def test_unusable_probes_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Probes(**settings)


def test_a_control_has_no_tolerance() -> None:
    x = torch.rand(1, 1, 2, 2)
    with pytest.raises(ValueError, match="no tolerance"):
        spectral_control(lambda x: x.flatten(1), (x,), (x[None],), probes=Probes(8, 0.1))


def test_without_a_number_all_outputs_are_taken() -> None:
    chosen = directions(torch.randn(2, 50), Probes())
    assert (chosen.n_exact, chosen.n_signs) == (50, 0)
    assert torch.equal(torch.stack(list(chosen)).sum(0), torch.ones(2, 50))


@pytest.mark.parametrize("drawn_as", [np.int8, np.int64])
def test_signs_are_those_of_each_examples_own_generator(drawn_as: type[np.signedinteger]) -> None:
    output = torch.randn(3, 40, generator=torch.Generator().manual_seed(1))
    order = by_probability(output)
    chosen = Directions(order, 4, 5, seed=2, first_index=7, drawn_as=drawn_as)
    signs = torch.stack(list(chosen.signs()))
    for i in range(3):
        generator = np.random.default_rng([2, 7 + i])
        for direction in signs[:, i]:
            if drawn_as is np.int64:  # what `choice` has always drawn from
                expected = generator.choice(np.array([-1.0, 1.0]), 40)
            else:
                expected = 2.0 * generator.integers(0, 2, 40, dtype=np.int8) - 1
            rest = torch.from_numpy(expected).float()
            rest[order[i, :4]] = 0
            assert torch.equal(direction, rest)
