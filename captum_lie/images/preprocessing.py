"""From image files to model inputs: plain images in [0, 1], normalisation inside the model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from captum_lie.errors import InvalidValueError
from captum_lie.images.view import View


class Normalized(nn.Module):
    """A model that takes plain images in [0, 1] and normalises them itself.

    Groups then act on the image that a person sees: brightness, for one, would mean something else
    on normalised values.

    Args:
        model: takes normalised images.
        mean, std: for each channel, or one number for all.
        input_size: ``(height, width)`` that the model expects, if it expects one.
        view: how images are to be prepared for it, if its size alone does not say.
        classes: what its outputs are called, each by all its names with commas between.
        provenance: where its weights come from, for reports.

    Raises:
        ValueError: not finite, a standard deviation that is not positive, or numbers of channels
            that differ.

    Example:
        >>> model = Normalized(nn.Flatten(), mean=(0.5,), std=(0.25,))
        >>> model(torch.full((1, 1, 1, 1), 0.75)).item()
        1.0
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: nn.Module,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        input_size: tuple[int, int] | None = None,
        *,
        view: View | None = None,
        classes: Sequence[str] | None = None,
        provenance: str | None = None,
    ) -> None:
        super().__init__()
        means, deviations = torch.tensor(mean), torch.tensor(std)
        if not ((deviations > 0) & deviations.isfinite()).all():
            raise InvalidValueError(
                f"Standard deviations must be positive and finite; got {tuple(std)}."
            )
        if not means.isfinite().all():
            raise InvalidValueError(f"Means must be finite; got {tuple(mean)}.")
        if len({len(means), len(deviations)} - {1}) > 1:
            raise InvalidValueError(
                "Give one mean and one standard deviation for each channel, or one for all; "
                f"got {len(means)} and {len(deviations)}."
            )
        self.model = model
        self.input_size = input_size if view is None else view.size
        self.view, self.classes, self.provenance = view, classes, provenance
        self.register_buffer("mean", means[:, None, None], persistent=False)
        self.register_buffer("std", deviations[:, None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.model((x - self.mean) / self.std)
        return output
