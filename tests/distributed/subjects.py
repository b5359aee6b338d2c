"""What processes measure together, and alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from captum_lie import LocalEquivarianceError

IMAGES = torch.rand(14, 1, 8, 8, generator=torch.Generator().manual_seed(1))
GROUPS = ("rotation", "scale", "brightness")


class Many(nn.Module):
    """More outputs than are probed exactly, so that draws depend on each image's position."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inside = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 36, 40)
        )

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.inside(x)
        return found


def local_error() -> LocalEquivarianceError:
    return LocalEquivarianceError(Many().eval())
