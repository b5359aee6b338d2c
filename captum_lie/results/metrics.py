"""What several metrics return: a table of their results."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import overload

import pandas as pd

from captum_lie.results.metric import Array, MetricResult
from captum_lie.results.summary import concatenate, paired_difference, summarise

__all__ = ["Array", "MetricResult", "MetricTable", "paired_difference", "summarise"]


class MetricTable(Sequence[MetricResult]):
    """Several results, in order; also reached by variant or metric name.

    Example:
        >>> import torch
        >>> from captum_lie.metrics import discrete_group_error
        >>> table = discrete_group_error(lambda x: x.flatten(1), torch.rand(3, 1, 2, 2))
        >>> table["rot180"].n
        3
    """

    def __init__(self, results: Sequence[MetricResult]) -> None:
        self._results = tuple(results)

    def __len__(self) -> int:
        return len(self._results)

    def __iter__(self) -> Iterator[MetricResult]:
        return iter(self._results)

    @overload
    def __getitem__(self, key: int | str) -> MetricResult: ...
    @overload
    def __getitem__(self, key: slice) -> MetricTable: ...
    def __getitem__(self, key: int | str | slice) -> MetricResult | MetricTable:
        if isinstance(key, slice):
            return MetricTable(self._results[key])
        if isinstance(key, int):
            return self._results[key]
        found = [r for r in self if key in (r.variant, r.metric, f"{r.metric}:{r.variant}")]
        if len(found) != 1:
            names = ", ".join(f"{r.metric}:{r.variant}" for r in self)
            raise KeyError(
                f"{key!r} names {len(found)} results, not one; choose from {names} "
                "(metric:variant), or use an integer index."
            )
        return found[0]

    def __repr__(self) -> str:
        rows = (f"{r.metric}:{r.variant}={r.value:.4g}±{r.stderr:.2g}" for r in self)
        return f"MetricTable({', '.join(rows)})"

    def to_dataframe(self) -> pd.DataFrame:
        """A row per result: the summary, then ``error_bar``, then every scalar parameter."""
        return pd.DataFrame([r.row() for r in self])

    def to_json(self) -> str:
        """A JSON list of :meth:`MetricResult.to_dict`."""
        return json.dumps([r.to_dict() for r in self], allow_nan=False)

    @staticmethod
    def concatenate(parts: Sequence[MetricTable]) -> MetricTable:
        """The same metrics of consecutive examples as one.

        Raises:
            ValueError: other metrics, units or parameters from part to part.
        """
        return MetricTable([concatenate(list(results)) for results in zip(*parts, strict=True)])

    @staticmethod
    def from_json(text: str) -> MetricTable:
        """The inverse of :meth:`to_json`."""
        return MetricTable([MetricResult.from_dict(content) for content in json.loads(text)])
