"""Sampled control tangents: same norm and spectrum as a group's, but scrambled phase.

The mean over all phases has a closed form (:mod:`captum_lie.core.spectral_control`); a few samples
take its place for models without reverse mode.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def phase_scrambled(x: Tensor, copies: int, *, seed: int = 0, first_index: int = 0) -> Tensor:
    """Images with the amplitude spectrum of ``x`` and random phases.

    The phases are those of white noise, hence Hermitian, and shared by the channels, which keeps
    the correlation between colours. The norm of each channel is kept exactly (Parseval).

    Images of different sizes have independent phases.

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
            np.random.default_rng([seed, first_index + i, height, width]).standard_normal(
                (copies, height, width)
            )
            for i in range(len(x))
        ],
        axis=1,
    )
    phases = torch.fft.fft2(torch.from_numpy(noise).to(device=x.device, dtype=x.dtype))
    phases = torch.polar(torch.ones_like(phases.real), phases.angle()).unsqueeze(2)  # 1 for zero
    return torch.real(torch.fft.ifft2(torch.fft.fft2(x) * phases))
