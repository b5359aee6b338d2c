"""Where in the image module calls add to the error, and which of them are worth drawing."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from captum_lie.layouts import Layout
from captum_lie.results.layerwise import LayerwiseResult


@dataclass(frozen=True)
class LayerMap:
    """The contribution of one module call, spread over its output.

    Attributes:
        module: its name.
        call: how many times the module was called before.
        attribution: shaped like its output, ``[N, ...]``; the sum for each example is the call's
            ``aligned`` contribution to that example's LEE.
        layout: of the output.
    """

    module: str
    call: int
    attribution: Tensor
    layout: Layout


def leading_calls(result: LayerwiseResult, most: int = 6) -> list[tuple[str, int]]:
    """The leaf calls with the largest contributions whose output can be drawn, in order of depth.

    Each is a module's name and how many times it was called before.
    """
    drawable = [
        (contribution.abs().mean().item(), i)
        for i, (row, contribution) in enumerate(
            zip(result.rows, result.self_contributions, strict=True)
        )
        if row.is_leaf
        and row.resolved
        and len(set(row.output_layout)) == 1
        and row.output_layout[0].moves
    ]
    leading = sorted(i for _, i in sorted(drawable, reverse=True)[:most])
    return [(result.rows[i].module, result.rows[i].call) for i in leading]
