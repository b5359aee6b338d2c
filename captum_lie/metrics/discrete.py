"""Reflections and quarter turns: symmetries that no Lie derivative can see."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from captum_lie.core.validation import one_of
from captum_lie.errors import InvalidValueError
from captum_lie.metrics.settings import Evaluation, EvaluationOptions
from captum_lie.metrics.streaming import Images, Model, evaluated, squared_change
from captum_lie.results.metrics import Array, MetricTable, summarise

if TYPE_CHECKING:
    from typing_extensions import Unpack

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
    **options: Unpack[EvaluationOptions],
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
            outputs that should move with the input; ``TRIVIAL`` by default.
        batch_size, first_index, show_progress: as for :func:`eq_t`.

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
    how = Evaluation(**options)
    if not elements:
        raise InvalidValueError(f"No element given. Name at least one of {', '.join(ELEMENTS)}.")
    for element in elements:
        one_of("element", element, ELEMENTS)
        if how.layout.grid and len(set(how.layout.grid)) > 1 and element in ("rot90", "rot270"):
            raise InvalidValueError(
                f"{element} exchanges the sides of the output's grid, of which {how.layout} has "
                "only one way round. Leave quarter turns out, or pass square images."
            )
    errors: dict[str, list[Tensor]] = {element: [] for element in elements}
    index: list[Array] = []
    for block, reference in evaluated(model, images, "reflections and quarter turns", how):
        index.append(block.index)
        for element in elements:
            forth, back = _ELEMENTS[element]

            def act(x: Tensor, _e: Array, _s: Array, forth: _Action = forth) -> Tensor:
                return forth(x)

            def undo(output: Tensor, _sample: int, back: _Action = back) -> Tensor:
                return how.layout.transform(output, back)

            change = squared_change(
                model, block, act, 1, evaluation=how, reference=reference, undo=undo
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
                parameters={"output_layout": str(how.layout)},
            )
            for element in elements
        ]
    )
