"""Families of numbers: of one kind and unit, by name.

What a number may lose to rounding is measured by the largest of its family (see
:func:`tests.numbers.record.differences`), so members must be comparable in size.
"""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
from torch import Tensor

Family = dict[str, float]
Families = dict[str, Family]


def digest(values: Tensor, n: int = 5) -> Family:
    """Root of the sum of squares, sum, and a few entries spread over a tensor.

    >>> import torch
    >>> digest(torch.tensor([3.0, 4.0]), 1)
    {'norm': 5.0, 'sum': 7.0, '[0]': 3.0}
    """
    flat = values.detach().flatten()
    places = [(len(flat) - 1) * (i + 1) // (n + 1) for i in range(n)]
    entries = {f"[{i}]": flat[i].item() for i in places}
    return {"norm": flat.norm().item(), "sum": flat.sum().item(), **entries}


def named(names: Iterable[str], values: Tensor) -> Family:
    """A number for each name."""
    return dict(zip(names, values.tolist(), strict=True))


def column(table: pd.DataFrame, name: str) -> Family:
    """One column by the table's index; what is not defined (NaN) is left out."""
    return {str(row): float(value) for row, value in table[name].dropna().items()}
