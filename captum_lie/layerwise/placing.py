"""Which layouts the tensors of one evaluation have, found in the order in which they are met."""

from __future__ import annotations

from collections.abc import MutableMapping

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from captum_lie.errors import InvalidValueError
from captum_lie.layerwise.tracing import Boundary, Call, Overrides, Side
from captum_lie.layouts import NCHW, TRIVIAL, UNKNOWN, Evidence, Layout, infer


class Placing:
    """The layouts of one evaluation: overrides, the model's own, or inferred from what was seen.

    Args:
        batch: number of examples.
        image: ``(H, W)`` of the model's input.
        overrides: by module name.
    """

    def __init__(self, batch: int, image: tuple[int, int], overrides: Overrides) -> None:
        self._batch, self._image = batch, image
        self._overrides = overrides
        self._layouts: MutableMapping[Tensor, Layout] = WeakIdKeyDictionary()
        self._by_shape: dict[tuple[int, ...], Layout] = {}
        self._grids: dict[tuple[int, tuple[int, int]], None] = {}  # a set that keeps its order

    def layout(self, call: Call, side: Side, x: Tensor) -> Layout:
        """The layout of a tensor at a call's boundary.

        Raises:
            ValueError: an override does not fit the tensor.
        """
        override = self._overrides.get(call.name)
        if isinstance(override, tuple):
            override = override[0 if side == "input" else 1]
        if override is not None:
            if not override.fits(x) and override != UNKNOWN:
                raise InvalidValueError(
                    f"The layout {override} given for the {side} of {call.name!r} does not fit its "
                    f"shape {tuple(x.shape)}."
                )
            return override
        if call.parent is None:  # the model itself: an image in, class scores out
            return NCHW if side == "input" else TRIVIAL
        return infer(call.module, x, self._evidence(call, side, x), side)

    def note(self, boundary: Boundary) -> None:
        """Remember a layout for what will be met later."""
        layout, x = boundary.layout, boundary.copy
        self._layouts[x] = layout
        if layout.moves and layout.regrouping is None:  # windows of one shape may be shifted
            self._by_shape[tuple(x.shape)] = layout
        if layout.grid is not None and layout.regrouping is None:
            self._grids[layout.prefix, layout.grid] = None

    def _evidence(self, call: Call, side: Side, x: Tensor) -> Evidence:
        known = self._layouts.get(x)
        if known is None and side == "output":
            known = next((b.layout for b in call.inputs if b.shape == x.shape), None)
        if known is None:
            known = self._by_shape.get(tuple(x.shape))
        return Evidence(
            self._batch,
            self._image,
            known=known,
            sources=tuple(b.layout for b in call.inputs) if side == "output" else (),
            side=side,
            ancestors=tuple(outer.module for outer in call.around),
            extents=tuple(outer.extent for outer in call.around),
            grids=tuple(self._grids),
        )
