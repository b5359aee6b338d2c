"""How the equivariance error builds up along a network: a table of its head networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd
import torch
from torch import Tensor

from captum_lie.results.averages import mean_and_stderr
from captum_lie.results.rows import Row, check_same_rows


@dataclass(frozen=True)
class SubnetworkResult:
    """Equivariance errors of every head network, from the image to the output of one module call.

    Attributes:
        rows: the module calls, in the order in which they began; the first is the model itself.
        group: name of the group.
        dims: numbers in one example's output, ``[R]``.
        squared_norm: ``‖ẋ - ξ(x)‖²``, the squared norm of ``L f_{1..i}``, ``[R, N]``; NaN where
            the layout is unknown.
        squared_generator: ``‖ξ(x)‖²``, ``[R, N]``.
        squared_features: ``‖x‖²``, ``[R, N]``.

    Example:
        The error of the network up to its pooling, as a share of how much its features move:

        >>> from captum_lie import SubnetworkEquivarianceError
        >>> from captum_lie.examples import load_images, load_model
        >>> images, _ = load_images(4)
        >>> result = SubnetworkEquivarianceError(load_model("cnn")).attribute(images, "scale")
        >>> names = [row.module for row in result.rows]
        >>> share = result.relative_to_generator[names.index("stem.maxpool")]
        >>> share.shape, bool((share > 0.1).all())
        (torch.Size([4]), True)
    """

    rows: list[Row]
    group: str
    dims: Tensor
    squared_norm: Tensor
    squared_generator: Tensor
    squared_features: Tensor

    @property
    def lee(self) -> Tensor:
        """Mean square per dimension, ``‖L f_{1..i}‖² / dim``, ``[R, N]``."""
        return self.squared_norm / self.dims[:, None]

    @property
    def per_root_dim(self) -> Tensor:
        """``‖L f_{1..i}‖² / √dim``, ``[R, N]``."""
        return self.squared_norm / self.dims[:, None].sqrt()

    @property
    def relative_to_generator(self) -> Tensor:
        """``‖ẋ - ξ(x)‖ / ‖ξ(x)‖``, ``[R, N]``; NaN where nothing moves (trivial layouts)."""
        return _ratio(self.squared_norm, self.squared_generator)

    @property
    def relative_to_features(self) -> Tensor:
        """``‖ẋ - ξ(x)‖ / ‖x‖``, ``[R, N]``; NaN where ``x`` is zero."""
        return _ratio(self.squared_norm, self.squared_features)

    def to_dataframe(self) -> pd.DataFrame:
        """A row per module call, means over the examples and their standard errors.

        Columns: ``module, type, kind, call, depth, is_leaf, output_layout, dim``, and each of
        ``squared_norm, per_root_dim, lee, relative_to_generator, relative_to_features`` with a
        ``…_stderr`` beside it (NaN for one example).
        """
        described = ["module", "type", "kind", "call", "depth", "is_leaf", "output_layout"]
        table = pd.DataFrame([row.printed() for row in self.rows])[described]
        table["dim"] = self.dims.long().numpy()
        for name in MEASURES:
            values: Tensor = getattr(self, name)
            mean, stderr = mean_and_stderr(values)
            table[name], table[f"{name}_stderr"] = mean.numpy(), stderr.numpy()
        return table

    @staticmethod
    def concatenate(parts: Sequence[SubnetworkResult]) -> SubnetworkResult:
        """Results of consecutive examples as one.

        Raises:
            ValueError: the model did not make the same calls for all of them.
        """
        first = parts[0]
        check_same_rows([part.rows for part in parts])
        return replace(
            first,
            squared_norm=torch.cat([part.squared_norm for part in parts], 1),
            squared_generator=torch.cat([part.squared_generator for part in parts], 1),
            squared_features=torch.cat([part.squared_features for part in parts], 1),
        )


#: What the table shows of each subnetwork.
MEASURES: tuple[str, ...] = (
    "squared_norm",
    "per_root_dim",
    "lee",
    "relative_to_generator",
    "relative_to_features",
)


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Root of a quotient, NaN where there is nothing to compare with."""
    return (numerator / denominator.masked_fill(denominator == 0, torch.nan)).sqrt()
