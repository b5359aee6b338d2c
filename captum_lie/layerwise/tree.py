"""The contribution tree: a row for every module call, and what it adds beyond its children."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from captum_lie.layerwise.kinds import module_kind
from captum_lie.layerwise.tracing import Call
from captum_lie.results.rows import Row


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
                tuple(boundary.layout for boundary in call.inputs),
                tuple(boundary.layout for boundary in call.outputs),
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
