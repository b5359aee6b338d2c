"""What the sampling-based baselines of single layers return."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from captum_lie.core.validation import one_of
from captum_lie.results.averages import mean_and_stderr
from captum_lie.results.drawing import draw
from captum_lie.results.rows import Row, check_same_rows

#: Ways to put layers of different sizes on one scale. The paper's App. D.1 has three for the
#: squared error; its released code divides it by 1, by √dim and by dim. The last two are ours.
NORMALISATIONS: tuple[str, ...] = (
    "sum",
    "per_root_dim",
    "mean",
    "relative_to_output",
    "relative_to_change",
)


@dataclass(frozen=True)
class SampledResult:
    """Errors ``‖f_i(T x_i) − T f_i(x_i)‖²`` of every module call, means over sampled motions T.

    Attributes:
        rows: the module calls, in the order in which they began; the first is the model itself.
        metric: ``"eq_t"``, ``"eq_t_frac"`` or ``"eq_r"``.
        squared_error: summed over the output's values, ``[R, N]``; NaN where a layout is unknown or
            grids do not fit one another.
        dims: number of values compared, ``[R, N]``.
        squared_output: ``‖T f_i(x_i)‖²``, ``[R, N]``.
        squared_change: ``‖T f_i(x_i) − f_i(x_i)‖²``, ``[R, N]``.
    """

    rows: list[Row]
    metric: str
    squared_error: Tensor
    dims: Tensor
    squared_output: Tensor
    squared_change: Tensor

    def errors(self, normalisation: str = "mean") -> Tensor:
        """The errors on one scale, ``[R, N]``; NaN where there is nothing to divide by.

        Args:
            normalisation: ``"sum"``: the squared error; ``"per_root_dim"``: over √dim; ``"mean"``:
                over dim; ``"relative_to_output"``: over the squared norm of the output;
                ``"relative_to_change"``: over what the motion changes of the output, so that 1 is
                as bad as not moving at all.
        """
        one_of("normalisation", normalisation, NORMALISATIONS)
        divisor = {
            "sum": torch.ones_like(self.dims),
            "per_root_dim": self.dims.sqrt(),
            "mean": self.dims,
            "relative_to_output": self.squared_output,
            "relative_to_change": self.squared_change,
        }[normalisation]
        nothing = (self.dims == 0) | (divisor == 0)
        return self.squared_error / divisor.masked_fill(nothing, torch.nan)

    def to_dataframe(self) -> pd.DataFrame:
        """A row per module call, means over the examples and their standard errors.

        Examples for which an error is not defined (every sampled motion was the identity on a
        coarse grid) are left out of its mean.

        Columns: ``module, type, kind, call, depth, is_leaf, input_layout, output_layout, metric,
        dim, n``, and each of :data:`NORMALISATIONS` with a ``…_stderr`` beside it.
        """
        described = ["module", "type", "kind", "call", "depth", "is_leaf",
                     "input_layout", "output_layout"]  # fmt: skip
        table = pd.DataFrame([row.printed() for row in self.rows])[described]
        table["metric"], table["n"] = self.metric, self.squared_error.shape[1]
        table["dim"] = self.dims.mean(1).numpy()
        for name in NORMALISATIONS:
            mean, stderr = mean_and_stderr(self.errors(name))
            table[name], table[f"{name}_stderr"] = mean.numpy(), stderr.numpy()
        return table

    def plot(self, normalisation: str = "mean") -> Figure:
        """Errors of the leaves along depth, coloured by kind (the paper's Figure 4, right)."""
        return draw(self, normalisation=normalisation)

    @staticmethod
    def concatenate(parts: Sequence[SampledResult]) -> SampledResult:
        """Results of consecutive examples as one.

        Raises:
            ValueError: the model did not make the same calls for all of them.
        """
        check_same_rows([part.rows for part in parts])
        return replace(
            parts[0],
            squared_error=torch.cat([part.squared_error for part in parts], 1),
            dims=torch.cat([part.dims for part in parts], 1),
            squared_output=torch.cat([part.squared_output for part in parts], 1),
            squared_change=torch.cat([part.squared_change for part in parts], 1),
        )
