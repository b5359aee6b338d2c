"""The contribution tree: a row for every module call, and what it adds beyond its children."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from captum_lie.errors import InvalidValueError
from captum_lie.layerwise.kinds import module_kind
from captum_lie.layerwise.tracing import Boundary, Call


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
        parent: row of the nearest resolved call around it, -1 for the model.
    """

    module: str
    type: str
    kind: str
    call: int
    depth: int
    is_leaf: bool
    resolved: bool
    input_layout: str
    output_layout: str
    parent: int


def rows_of(calls: Sequence[Call]) -> list[Row]:
    """Describe calls, which must come in the order in which they began."""
    position = {id(call): i for i, call in enumerate(calls)}
    rows = []
    for call in calls:
        ancestor = call.parent
        while ancestor is not None and not (ancestor.resolved and id(ancestor) in position):
            ancestor = ancestor.parent
        rows.append(
            Row(
                call.name,
                type(call.module).__name__,
                module_kind(call.module, is_leaf=not call.has_children),
                call.index,
                call.depth,
                not call.has_children,
                call.resolved,
                _layouts(call.inputs),
                _layouts(call.outputs),
                -1 if ancestor is None else position[id(ancestor)],
            )
        )
    return rows


def self_contributions(rows: Sequence[Row], contributions: Tensor) -> Tensor:
    """What each call contributes beyond the resolved calls within it.

    For a leaf that is its contribution; for a container, what its own functional code (residual
    additions, reshapes, pooling calls) and its unresolved children contribute.

    Args:
        contributions: ``[R, ...]``, additive (linear in the output direction).
    """
    own = contributions.clone()
    for i, row in enumerate(rows):
        if row.resolved and row.parent >= 0:
            own[row.parent] -= contributions[i]
    return own


def check_same_rows(batches: Sequence[list[Row]]) -> None:
    """Results of several batches can be joined only if the model made the same calls in all."""
    if any(rows != batches[0] for rows in batches):
        raise InvalidValueError(
            "The model makes different module calls, or its layouts differ, from batch to "
            "batch: evaluate the batches one by one."
        )


def _layouts(boundaries: Sequence[Boundary]) -> str:
    return ", ".join(dict.fromkeys(str(b.layout) for b in boundaries)) or "none"


def leaf_share(rows: Sequence[Row]) -> float:
    """Share of leaf calls whose own contribution is given rather than folded into an ancestor."""
    leaves = [row.resolved for row in rows if row.is_leaf]
    return float(torch.tensor(leaves).double().mean()) if leaves else 1.0
