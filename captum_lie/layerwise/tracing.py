"""Boundary tracing: one evaluation of a model in which every module call is seen from outside.

Hooks hand each module a copy of its inputs, so that gradients are those *through that module only*
(a residual branch does not see the shortcut), and so that in-place operations destroy neither side.
They are removed on leaving, also after an exception.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.hooks import RemovableHandle

from captum_lie.core.validation import one_of
from captum_lie.errors import InvalidTypeError, InvalidValueError
from captum_lie.layouts import NCHW, TRIVIAL, UNKNOWN, Evidence, Layout, infer, passes_on

Side = Literal["input", "output"]


@dataclass(eq=False)
class Boundary:
    """One tensor at a module's input or output: the original and the copy that went on.

    Whichever of the two was not overwritten since gives the value. ``leaf`` is its place among the
    leaves of the arguments or of the output.
    """

    original: Tensor
    copy: Tensor
    layout: Layout
    versions: tuple[int, int]
    leaf: int

    @property
    def value(self) -> Tensor:
        for tensor, version in zip((self.original, self.copy), self.versions, strict=True):
            if tensor._version == version:
                return tensor.detach()
        raise RuntimeError("Both the tensor and its copy were overwritten in place.")


@dataclass(eq=False)
class Call:
    """One call of a module.

    Attributes:
        name: dotted name in the model, ``""`` for the model itself.
        index: how many times this module was called before.
        parent: the call within which it happened.
    """

    name: str
    module: nn.Module
    index: int
    parent: Call | None
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
        return len(list(self.around()))

    @cached_property
    def extent(self) -> tuple[int, int] | None:
        """``(h, w)`` of the first image or grid that it got; to be asked for once it has all."""
        moving = (b for b in self.inputs if b.layout.moves)
        return next((b.layout.extent(b.copy) for b in moving), None)

    def around(self) -> Iterator[Call]:
        """The calls within which it happened, the nearest first."""
        call = self.parent
        while call is not None:
            yield call
            call = call.parent


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


class Trace:
    """The calls of one evaluation, in the order in which they began."""

    def __init__(self, model: nn.Module, batch: int, image: tuple[int, int], overrides: Overrides):
        self.model = model
        self.calls: list[Call] = []
        self.recording = True
        self.on_boundary: Callable[[Call, Side, Boundary], None] | None = None
        self._evidence = Evidence(batch, image)
        self._overrides = overrides
        self._counts: Counter[str] = Counter()
        self._stack: list[Call] = []
        self._layouts: dict[int, Layout] = {}  # by id; the boundaries keep these tensors alive
        self._by_shape: dict[tuple[int, ...], Layout] = {}
        self._grids: dict[tuple[int, tuple[int, int]], None] = {}  # a set that keeps its order

    def enter(self, name: str, module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """Record a call and copy its inputs."""
        if not self._should_record(name):
            args, kwargs = _copied((args, kwargs), lambda _, x: x.clone())
            return args, kwargs
        parent = self._stack[-1] if self._stack else None
        call = Call(name, module, self._counts[name], parent)
        self._counts[name] += 1
        self.calls.append(call)
        if parent is not None:
            parent.has_children = True
        self._stack.append(call)
        args, kwargs = _copied((args, kwargs), lambda leaf, x: self._cross(call, "input", leaf, x))
        return args, kwargs

    def leave(self, name: str, output: Any) -> Any:
        """Finish the call on top of the stack and copy its outputs."""
        if not self._stack or self._stack[-1].name != name or not self._is_recording():
            return _copied(output, lambda _, x: x.clone())
        call = self._stack.pop()
        return _copied(output, lambda leaf, x: self._cross(call, "output", leaf, x))

    def _should_record(self, name: str) -> bool:
        # A checkpointed block runs again in the backward pass: record what was not seen before.
        return self._is_recording() and (self.recording or self._counts[name] == 0)

    def _is_recording(self) -> bool:
        return torch.is_grad_enabled()

    def _cross(self, call: Call, side: Side, leaf: int, x: Tensor) -> Tensor:
        layout = self._layout(call, side, x)
        copy = x.clone()
        boundary = Boundary(x, copy, layout, (x._version, copy._version), leaf)
        (call.inputs if side == "input" else call.outputs).append(boundary)
        self._layouts[id(copy)] = layout
        if layout.moves and layout.kind != "regrouped":  # windows of one shape may be shifted
            self._by_shape[tuple(x.shape)] = layout
        if layout.grid is not None and layout.kind != "regrouped":
            self._grids[layout.prefix, layout.grid] = None
        if self.on_boundary is not None:
            self.on_boundary(call, side, boundary)
        return copy

    def _layout(self, call: Call, side: Side, x: Tensor) -> Layout:
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
        known = self._layouts.get(id(x))
        if known is None and side == "output":
            known = next((b.layout for b in call.inputs if b.original.shape == x.shape), None)
        if known is None:
            known = self._by_shape.get(tuple(x.shape))
        sources = tuple(b.layout for b in call.inputs) if side == "output" else ()
        around = tuple(call.around())
        evidence = replace(
            self._evidence,
            known=known,
            sources=sources,
            ancestors=tuple(outer.module for outer in around),
            extents=tuple(outer.extent for outer in around),
            grids=tuple(self._grids),
        )
        return infer(call.module, x, evidence, side)


@contextmanager
def traced(trace: Trace) -> Iterator[None]:
    """Install the hooks of a trace on every module of its model."""
    handles: list[RemovableHandle] = []
    try:
        for name, module in trace.model.named_modules():
            handles.append(
                module.register_forward_pre_hook(
                    lambda m, args, kwargs, name=name: trace.enter(name, m, args, kwargs),
                    with_kwargs=True,
                    prepend=False,
                )
            )
            handles.append(
                module.register_forward_hook(
                    lambda m, args, output, name=name: trace.leave(name, output)
                )
            )
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Parameters without gradients: a tensor then requires one just if it depends on the input."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    try:
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


def _copied(tree: Any, copy: Callable[[int, Tensor], Tensor]) -> Any:
    """A structure of tensors with those that depend on the input replaced by copies."""
    leaves, structure = pytree.tree_flatten(tree)
    copies = [
        copy(i, x) if isinstance(x, Tensor) and x.requires_grad and x.is_floating_point() else x
        for i, x in enumerate(leaves)
    ]
    return pytree.tree_unflatten(copies, structure)
