"""Means over examples and their standard errors."""

from __future__ import annotations

import torch
from torch import Tensor


def mean_and_stderr(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over examples of each row, and its standard error, leaving out undefined values.

    Args:
        values: ``[R, N]``; NaN where an example has no value.

    Returns:
        Two tensors ``[R]``. The mean is NaN for a row without values, the standard error for one
        with fewer than two.

    Example:
        >>> mean, stderr = mean_and_stderr(torch.tensor([[1.0, 3.0, torch.nan]]))
        >>> mean.item(), stderr.item()
        (2.0, 1.0)
    """
    n = values.isnan().logical_not().sum(1)
    mean = values.nanmean(1)
    squares = (values - mean[:, None]).square().nansum(1)
    stderr = (squares / (n * (n - 1)).clamp(min=1)).sqrt().masked_fill(n < 2, torch.nan)
    return mean, stderr
