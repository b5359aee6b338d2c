"""How far one module call is from commuting with finite motions of what it was given."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from captum_lie.layerwise.tracing import Call
from captum_lie.layouts import Layout
from captum_lie.metrics.motions import Motion, Move
from captum_lie.results.metrics import Array


def sampled_errors(call: Call, motion: Motion, draws: Array, *, masked: bool) -> Tensor:
    """Squared error, number of values, squared output and squared change, ``[4, N]``.

    Sums over the values of all outputs, means over the sampled motions.

    Args:
        call: is repeated alone on moved copies of its inputs.
        draws: determine the motions of each example, ``[N, n_samples, d]``.
        masked: count only values whose motion depends on no border.
    """
    n = len(draws)
    layouts = [b.layout for b in (*call.inputs, *call.outputs)]
    values = [b.value for b in (*call.inputs, *call.outputs)]
    grids = [layout.extent(x) for layout, x in zip(layouts, values, strict=True) if layout.moves]
    grids = grids or [(1, 1)]  # nothing moves
    if not call.resolved or not motion.fits(grids):
        return torch.full((4, n), torch.nan, dtype=torch.float64)
    total = torch.zeros(4, n, dtype=torch.float64, device=values[0].device if values else None)
    for sample in range(draws.shape[1]):
        move = motion.move(motion.plan(draws[:, sample], grids), grids[0])
        leaves = list(call.arguments.values)
        for boundary in call.inputs:
            leaves[boundary.leaf], _ = moved(boundary.layout, boundary.value.clone(), move.act)
        args, kwargs = call.arguments.rebuilt(leaves)
        outputs = pytree.tree_leaves(call.module(*args, **kwargs))
        for boundary in call.outputs:
            total += _compared(
                boundary.layout, boundary.value, outputs[boundary.leaf], move, masked, n
            )
    mean: Tensor = total / draws.shape[1]
    return mean


def _compared(
    layout: Layout, still: Tensor, got: Tensor, move: Move, masked: bool, n: int
) -> Tensor:
    """The four sums over one output, for each of ``n`` examples."""
    wanted, inside = moved(layout, still, move.act)
    got, kept = moved(layout, got, move.match)
    weight = (inside & kept if masked else torch.ones_like(inside)).double()
    wanted, got, still = wanted.double(), got.double(), still.double()
    sums = (
        weight * (got - wanted).square(),
        weight,
        weight * wanted.square(),
        weight * (wanted - still).square(),
    )
    return torch.stack([s.reshape(n, -1).sum(1) for s in sums])


def moved(layout: Layout, x: Tensor, act: Any) -> tuple[Tensor, Tensor]:
    """A tensor with its grid moved and the rest as it was, and which values depend on no border.

    Args:
        act: images ``[N, C, h, w]`` to moved ones and a mask ``[N, 1, h, w]``.
    """
    if not layout.moves:
        return x, torch.ones_like(x, dtype=torch.bool)
    image = layout.to_image(x)
    result, inside = act(image)
    outside = (~inside).expand(image.shape).to(x.dtype)
    rest = x - layout.from_image(image, x)  # prefix tokens; zero elsewhere
    return rest + layout.from_image(result.to(x.dtype), x), layout.from_image(outside, x) == 0
