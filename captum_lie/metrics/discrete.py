"""Reflections and quarter turns: symmetries that no Lie derivative can see."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from captum_lie.core.derivative import OutputFn
from captum_lie.core.outputs import softmax
from captum_lie.core.validation import one_of
from captum_lie.errors import InvalidValueError
from captum_lie.layouts import TRIVIAL, OutputLayout, as_output_layout
from captum_lie.metrics.streaming import (
    Images,
    Model,
    apply_output_fn,
    blocks,
    call,
    squared_change,
)
from captum_lie.results.metrics import Array, MetricTable, summarise

_Action = Callable[[Tensor], Tensor]

#: Each element with its inverse; ``rot90`` turns as a positive angle of ``Rotation`` does.
_ELEMENTS: dict[str, tuple[_Action, _Action]] = {
    "flip_x": (lambda x: x.flip(-1), lambda x: x.flip(-1)),
    "flip_y": (lambda x: x.flip(-2), lambda x: x.flip(-2)),
    "rot90": (lambda x: x.rot90(-1, (-2, -1)), lambda x: x.rot90(1, (-2, -1))),
    "rot180": (lambda x: x.flip(-2, -1), lambda x: x.flip(-2, -1)),
    "rot270": (lambda x: x.rot90(1, (-2, -1)), lambda x: x.rot90(-1, (-2, -1))),
}
ELEMENTS: tuple[str, ...] = tuple(_ELEMENTS)


def discrete_group_error(
    model: Model,
    images: Images,
    elements: Sequence[str] = ELEMENTS,
    *,
    output_fn: OutputFn | None = softmax,
    output_layout: OutputLayout = TRIVIAL,
    batch_size: int = 32,
    show_progress: bool = False,
) -> MetricTable:
    """Mean square of ``f(x) − g⁻¹ f(g x)`` for reflections and quarter turns g.

    Pixels are only rearranged: nothing is interpolated, and nothing outside the image is read.

    Args:
        model: images ``[N, C, H, W]`` to scores ``[N, K]`` or maps ``[N, K, H', W']``; any
            callable.
        images: a tensor, or a loader of tensors or tuples whose first member they are. Quarter
            turns exchange H and W, so the model must take both.
        elements: any of ``"flip_x"`` (left to right), ``"flip_y"``, ``"rot90"``, ``"rot180"``,
            ``"rot270"``.
        output_fn: applied to the output; softmax over dimension 1 by default, None for none.
        output_layout: :data:`captum_lie.layouts.NCHW` or another layout with spatial axes for
            outputs that should move with the input.
        batch_size: images per call of the model.
        show_progress: show a progress bar.

    Returns:
        One result per element, in mean square per output value.

    Raises:
        TypeError, ValueError: images, elements, model output or options are not usable.

    Source:
        The finite form of Hutchinson et al., "LieTransformer" (2021).

    Example:
        >>> error = discrete_group_error(lambda x: x.mean((2, 3)), torch.rand(2, 3, 4, 4))
        >>> error["flip_x"].value < 1e-12
        True
    """
    layout = as_output_layout(output_layout)
    if not elements:
        raise InvalidValueError(f"No element given. Name at least one of {', '.join(ELEMENTS)}.")
    for element in elements:
        one_of("element", element, ELEMENTS)
        if layout.grid and len(set(layout.grid)) > 1 and element in ("rot90", "rot270"):
            raise InvalidValueError(
                f"{element} exchanges the sides of the output's grid, of which {layout} has only "
                "one way round. Leave quarter turns out, or pass square images."
            )
    errors: dict[str, list[Tensor]] = {element: [] for element in elements}
    index: list[Array] = []
    for block in blocks(
        model,
        images,
        batch_size=batch_size,
        description="reflections and quarter turns",
        show_progress=show_progress,
    ):
        reference = apply_output_fn(output_fn, call(model, block.images))
        index.append(block.index)
        for element in elements:
            forth, back = _ELEMENTS[element]

            def act(x: Tensor, _e: Array, _s: Array, forth: _Action = forth) -> Tensor:
                return forth(x)

            def undo(output: Tensor, _sample: int, back: _Action = back) -> Tensor:
                return layout.transform(output, back)

            change = squared_change(
                model,
                block,
                1,
                act,
                undo=undo if layout.moves else None,
                output_fn=output_fn,
                reference=reference,
                batch_size=batch_size,
            )
            errors[element].append(change[:, 0])
    return MetricTable(
        [
            summarise(
                "discrete_group",
                torch.cat(errors[element]).numpy(),
                variant=element,
                unit="mean square of the output",
                border="none",
                index=np.concatenate(index),
                parameters={"output_layout": str(layout)},
            )
            for element in elements
        ]
    )
