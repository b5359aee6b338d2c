"""Models to be measured, each with its part in the comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from captum_lie.results import Role

#: What the name of an untrained twin ends in, for people to read.
UNTRAINED = " (untrained)"


@dataclass(frozen=True, eq=False)
class Candidate:
    """A model under the name that tables and pictures show.

    Attributes:
        name: see above.
        model: in evaluation mode.
        role: a ``"control"`` is there for comparison: it gets no pictures.
        control_of: the name of the model that it is the control of.
    """

    name: str
    model: nn.Module
    role: Role = "trained"
    control_of: str | None = None

    @property
    def trained(self) -> bool:
        return self.role == "trained"

    def to(self, device: torch.device) -> Candidate:
        """The same, with its model on a device."""
        return Candidate(self.name, self.model.to(device), self.role, self.control_of)


#: Models by name are taken for trained ones.
Candidates = Mapping[str, nn.Module] | Sequence[Candidate]


def candidates_of(models: Candidates) -> list[Candidate]:
    """The candidates; of models by name, those names."""
    if isinstance(models, Mapping):
        return [Candidate(name, model) for name, model in models.items()]
    return list(models)


def untrained_twin(name: str, model: nn.Module) -> Candidate:
    """The same architecture without training, as the control of the model of that name.

    Example:
        >>> untrained_twin("cnn", nn.Identity()).name
        'cnn (untrained)'
    """
    return Candidate(name + UNTRAINED, model, "control", name)
