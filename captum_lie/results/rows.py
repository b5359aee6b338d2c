"""The module calls that rows of layerwise results stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from captum_lie.errors import InvalidValueError
from captum_lie.layouts import Layout

#: Kinds of modules, by which plots are coloured, in the order of the legend; ``functional`` is
#: what containers do outside their children.
KINDS: tuple[str, ...] = (
    "convolution",
    "non-linearity",
    "normalisation",
    "pooling/downsampling",
    "attention",
    "MLP",
    "patch embedding",
    "functional",
)


@dataclass(frozen=True)
class Row:
    """One module call in the table of contributions.

    Attributes:
        module: dotted name, ``""`` for the model itself.
        type: class name.
        kind: what sort of operation it is (see :func:`captum_lie.layerwise.kinds.module_kind`).
        call: how many times this module was called before.
        depth: calls that enclose it.
        is_leaf: no module is called within it.
        resolved: the layouts of its boundaries are known.
        input_layout, output_layout: of each tensor that it got and returned.
        parent: row of the nearest resolved call around it, -1 for the model.
    """

    module: str
    type: str
    kind: str
    call: int
    depth: int
    is_leaf: bool
    resolved: bool
    input_layout: tuple[Layout, ...]
    output_layout: tuple[Layout, ...]
    parent: int

    def printed(self) -> dict[str, object]:
        """What a table shows of it, by column.

        Example:
            >>> from captum_lie.layouts import NCHW, TRIVIAL
            >>> same = {"call": 0, "depth": 1, "is_leaf": True, "resolved": True, "parent": 0}
            >>> row = Row("sum", "Sum", "functional", **same, input_layout=(NCHW, NCHW, TRIVIAL),
            ...           output_layout=())
            >>> row.printed()["input_layout"], row.printed()["output_layout"]
            ('nchw, trivial', 'none')
        """
        layouts = {
            "input_layout": print_layouts(self.input_layout),
            "output_layout": print_layouts(self.output_layout),
        }
        return vars(self) | layouts


def print_layouts(layouts: Sequence[Layout]) -> str:
    """Layouts of tensors as tables show them, each once."""
    return ", ".join(dict.fromkeys(map(str, layouts))) or "none"


def check_same_rows(batches: Sequence[list[Row]]) -> None:
    """Results of several batches can be joined only if the model made the same calls in all."""
    if any(rows != batches[0] for rows in batches):
        raise InvalidValueError(
            "The model makes different module calls, or its layouts differ, from batch to "
            "batch: evaluate the batches one by one."
        )


def leaf_share(rows: Sequence[Row]) -> float:
    """Share of leaf calls whose own contribution is given rather than folded into an ancestor."""
    leaves = [row.resolved for row in rows if row.is_leaf]
    return float(torch.tensor(leaves).double().mean()) if leaves else 1.0
