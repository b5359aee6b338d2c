"""What is seen of one evaluation of a model: module calls and the tensors at their boundaries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal
from weakref import ref

from torch import Tensor, nn

from captum_lie.core.tangents import snapshot
from captum_lie.core.validation import one_of
from captum_lie.errors import InvalidTypeError, InvalidValueError
from captum_lie.layerwise.hooks import Leaves
from captum_lie.layouts import NCHW, TRIVIAL, UNKNOWN, Layout, passes_on

Side = Literal["input", "output"]


class Boundary:
    """One tensor at a module's input or output: the original and the copy that went on.

    Args:
        original, copy: the same values. Whichever of the two was not overwritten since gives
            :attr:`value`; tensors that carry tangents are not held, but their snapshot is.
        layout: which axes are spatial.
        leaf: its place among the leaves of the arguments or of the output.
    """

    def __init__(self, original: Tensor, copy: Tensor, layout: Layout, leaf: int) -> None:
        self.layout, self.leaf, self.shape = layout, leaf, copy.shape
        self._original, self._copy = (ref(original), original._version), (ref(copy), copy._version)
        held = snapshot(original)
        tensors = (original, copy) if held is original else (held,)
        self._held = [(tensor, tensor._version) for tensor in tensors]

    @property
    def copy(self) -> Tensor:
        """The copy that went on, while the model has it at least."""
        copy = self._copy[0]()
        assert copy is not None
        return copy

    @property
    def value(self) -> Tensor:
        for tensor, version in self._held:
            if tensor._version == version:
                return tensor.detach()
        raise RuntimeError("Both the tensor and its copy were overwritten in place.")

    @property
    def extent(self) -> tuple[int, int]:
        """``(h, w)`` of the image or grid."""
        return self.layout.extent(self._held[0][0])

    def is_next_to(self, before: Boundary) -> bool:
        """Whether what went on from the boundary before arrived here as it was."""
        (here, now), (there, then) = self._original, before._copy
        return here is there and now == then


@dataclass(eq=False)
class Call:
    """One call of a module.

    Attributes:
        name: dotted name in the model, ``""`` for the model itself.
        index: how many times this module was called before.
        parent: the call within which it happened.
        arguments: leaves of what it was given, None for those that are its inputs, and how to put
            them together.
        has_children: whether other calls happened within it.
    """

    name: str
    module: nn.Module
    index: int
    parent: Call | None
    arguments: Leaves
    inputs: list[Boundary] = field(default_factory=list)
    outputs: list[Boundary] = field(default_factory=list)
    has_children: bool = False

    @property
    def resolved(self) -> bool:
        """Whether its contribution can be told: all layouts are known, or it does nothing."""
        tensors = self.inputs + self.outputs
        return not self.constant and (self.idle or all(b.layout != UNKNOWN for b in tensors))

    @property
    def idle(self) -> bool:
        """Whether the module passes its input on as it is, so that it contributes exactly zero."""
        return passes_on(self.module)

    @property
    def constant(self) -> bool:
        """Whether nothing that depends on the model's input passes through it."""
        return not (self.inputs or self.outputs)

    @property
    def depth(self) -> int:
        return len(self.around)

    @cached_property
    def around(self) -> tuple[Call, ...]:
        """The calls within which it happened, the nearest first."""
        return () if self.parent is None else (self.parent, *self.parent.around)

    @cached_property
    def extent(self) -> tuple[int, int] | None:
        """``(h, w)`` of the first image or grid that it got; to be asked for once it has all."""
        moving = (b for b in self.inputs if b.layout.moves)
        return next((b.extent for b in moving), None)

    def side(self, side: Side) -> list[Boundary]:
        """The boundaries of one side."""
        return self.inputs if side == "input" else self.outputs


#: What users may override: a layout for both sides of a module, or one for each side.
Overrides = Mapping[str, Layout | tuple[Layout | None, Layout | None]]


def check_overrides(model: nn.Module, layouts: Mapping[str, object]) -> None:
    """Overrides must name modules of the model and give layouts."""
    names = {name for name, _ in model.named_modules()}
    for name, layout in layouts.items():
        one_of("module", name, sorted(names))
        sides = layout if isinstance(layout, tuple) else (layout, layout)
        if len(sides) != 2 or not all(s is None or isinstance(s, Layout) for s in sides):
            raise InvalidTypeError(
                f"The layout of {name!r} must be a Layout or a pair (input, output); "
                f"got {layout!r}."
            )


def check_whole(layouts: Overrides) -> None:
    """The model itself takes images and returns what stays put: totals are of such a function."""
    given = layouts.get("")
    sides = given if isinstance(given, tuple) else (given, given)
    for what, layout, fixed in zip(("input", "output"), sides, (NCHW, TRIVIAL), strict=True):
        if layout not in (None, fixed):
            raise InvalidValueError(
                f"The {what} of the model itself has the layout {fixed}, which cannot be changed; "
                f"got {layout} for ''. If the output is an image that should move with the input, "
                "let the model end in a mean over its pixels, or measure it as a whole with "
                "LocalEquivarianceError(model, output_layout=captum_lie.layouts.NCHW).score."
            )
