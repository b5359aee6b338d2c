"""What a layerwise decomposition returns: a table, and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from captum_lie.results.averages import mean_and_stderr
from captum_lie.results.drawing import draw
from captum_lie.results.rows import Row, check_same_rows, leaf_share


@dataclass(frozen=True)
class LayerwiseResult:
    """Contributions of every module call to the equivariance error of each example.

    Attributes:
        rows: the module calls, in the order in which they began; the first is the model itself.
        group: name of the group.
        measure: ``"aligned"``, ``"norm"`` or ``"target"``.
        total: by forward mode, ``[N]``: the LEE (``aligned``, ``norm``) or L f_k (``target``; for
            several groups at once see :func:`captum_lie.layerwise.totals.totals`).
        contributions: of each call with all that happens within it, ``[R, N]``; NaN where folded.
        self_contributions: of each call beyond the resolved calls within it, ``[R, N]``.
        stderr: standard errors of estimated contributions, ``[R, N]``; None where exact.
        method: how the contributions were computed: ``"exact"``, ``"exact, forward mode (45
            tangents)"``, ``"exact, reverse mode (8 backward passes)"`` or which probes.
    """

    rows: list[Row]
    group: str
    measure: str
    total: Tensor
    contributions: Tensor
    self_contributions: Tensor
    stderr: Tensor | None
    method: str

    @property
    def unattributed(self) -> Tensor:
        """Total by forward mode minus the sum of the self contributions, ``[N]``.

        Zero up to rounding for the additive measures: anything else means that an operator's
        derivative is wrong. NaN for ``norm``, which is not additive.
        """
        if self.measure == "norm":
            return torch.full_like(self.total, torch.nan)
        return self.total - self.self_contributions.nansum(0)

    @property
    def resolved_share(self) -> float:
        """Share of leaf calls whose own contribution is given rather than folded."""
        return leaf_share(self.rows)

    def to_dataframe(self) -> pd.DataFrame:
        """A row per module call, mean over the examples.

        Columns: ``module, type, kind, call, depth, is_leaf, input_layout, output_layout,
        contribution, self_contribution, stderr``; ``parent`` is the row of the nearest resolved
        call around it. ``stderr`` is that of the mean over examples.
        """
        mean, stderr = mean_and_stderr(self.contributions)
        if self.stderr is not None:
            stderr = self.stderr.square().sum(1).sqrt() / len(self.total)
        table = pd.DataFrame([row.printed() for row in self.rows]).drop(columns="resolved")
        table["contribution"] = mean.numpy()
        table["self_contribution"] = mean_and_stderr(self.self_contributions)[0].numpy()
        table["stderr"] = stderr.numpy()
        return table

    def plot(self) -> Figure:
        """Self contributions along depth, coloured by the kind of module."""
        return draw(self)

    @staticmethod
    def concatenate(parts: Sequence[LayerwiseResult]) -> LayerwiseResult:
        """Results of consecutive examples as one.

        Raises:
            ValueError: the model did not make the same calls for all of them.
        """
        first = parts[0]
        check_same_rows([part.rows for part in parts])
        stderr = [part.stderr for part in parts if part.stderr is not None]
        return replace(
            first,
            total=torch.cat([part.total for part in parts]),
            contributions=torch.cat([part.contributions for part in parts], 1),
            self_contributions=torch.cat([part.self_contributions for part in parts], 1),
            stderr=torch.cat(stderr, 1) if stderr else None,
        )
