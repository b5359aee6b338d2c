"""Control tangents: same norm and spectrum as a group's, but scrambled phase.

A raw LEE says nothing of learning: it scales with the bandwidth of the model. The same model's
response to tangents that only share the spectrum is the yardstick for *relative* LEE.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def phase_scrambled(x: Tensor, copies: int, *, seed: int = 0, first_index: int = 0) -> Tensor:
    """Images with the amplitude spectrum of ``x`` and random phases.

    The phases are those of white noise, hence Hermitian, and shared by the channels, which keeps
    the correlation between colours. The norm of each channel is kept exactly (Parseval).

    Args:
        x: ``[N, C, H, W]``.
        copies: how many independent scrambles, S.
        seed: with the index of an example it determines that example's phases, so that results do
            not depend on how examples are batched.
        first_index: index of the first example.

    Returns:
        ``[S, N, C, H, W]``.
    """
    height, width = x.shape[-2:]
    noise = np.stack(
        [
            np.random.default_rng([seed, first_index + i]).standard_normal((copies, height, width))
            for i in range(len(x))
        ],
        axis=1,
    )
    phases = torch.fft.fft2(torch.from_numpy(noise).to(device=x.device, dtype=x.dtype))
    phases = (phases / phases.abs()).unsqueeze(2)
    return torch.real(torch.fft.ifft2(torch.fft.fft2(x) * phases))
