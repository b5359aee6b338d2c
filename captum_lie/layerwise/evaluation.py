"""One evaluation of a model in which every module call is seen from outside.

All that is layerwise stands on it: contributions, norms, subnetworks, single layers and sampled
baselines look on at its boundaries and calls. Each module is handed clones of its inputs, so that
gradients are those *through that module only* (a residual branch does not see the shortcut), and so
that in-place operations destroy neither side.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

from captum_lie.core.autodiff import differentiable, unhooked
from captum_lie.core.memory import lazy_clone
from captum_lie.core.tangents import hand_on
from captum_lie.layerwise.hooks import Leaves, frozen, hooked
from captum_lie.layerwise.placing import Placing
from captum_lie.layerwise.tracing import Boundary, Call, Overrides, Side

OnBoundary = Callable[[Call, Side, Boundary], None]
OnCall = Callable[[Call], None]


class Phase(Enum):
    """What the hooks on the modules do."""

    RECORDING = "record calls and their boundaries"
    BACKWARD = "hand on clones as before, to checkpointed blocks that run again"
    ASIDE = "nothing: modules are called for themselves"


class Evaluation:
    """The calls of one evaluation that something which depends on the images passes through.

    Attributes:
        model: the module.
        output: what the evaluated function returned.
        phase: what the hooks do now.
    """

    output: Tensor

    def __init__(
        self,
        model: nn.Module,
        placing: Placing,
        on_boundary: OnBoundary | None = None,
        on_call: OnCall | None = None,
    ) -> None:
        self.model = model
        self.phase = Phase.RECORDING
        self._placing = placing
        self._on_boundary, self._on_call = on_boundary, on_call
        self._calls: list[Call] = []
        self._running: list[Call] = []
        self._counts: Counter[str] = Counter()

    @property
    def calls(self) -> list[Call]:
        """In the order in which they began."""
        return [call for call in self._calls if not call.constant]

    def unwatch(self) -> None:
        """Let go of who looks on: they may hold the evaluation."""
        self._on_boundary = self._on_call = None

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Calls of modules in here are none of the evaluation's."""
        before, self.phase = self.phase, Phase.ASIDE
        try:
            yield
        finally:
            self.phase = before

    def enter(self, name: str, module: nn.Module, arguments: Leaves) -> list[Any] | None:
        """Record a call and clone its inputs."""
        if not self._is_recording():
            return self._again(arguments)
        parent = self._running[-1] if self._running else None
        constants = [None if depends(x) else x for x in arguments.values]
        left = Leaves(constants, arguments.structure)
        call = Call(name, module, self._counts[name], parent, left)
        self._counts[name] += 1
        self._calls.append(call)
        self._running.append(call)
        if parent is not None:
            parent.has_children = True
        return self._cross(call, "input", arguments)

    def leave(self, name: str, output: Leaves) -> list[Any] | None:
        """Finish a call and clone its outputs."""
        if not self._is_recording() or all(call.name != name for call in self._running):
            return self._again(output)
        while (call := self._running.pop()).name != name:
            pass  # a call that raised, and whose error the model caught
        changed = self._cross(call, "output", output)
        if self._on_call is not None:
            with self.aside():
                self._on_call(call)
        return changed

    def _is_recording(self) -> bool:
        """Nothing that a model does under ``no_grad`` of its own depends on the images."""
        return self.phase is Phase.RECORDING and torch.is_grad_enabled()

    def _again(self, leaves: Leaves) -> list[Any] | None:
        if self.phase is Phase.ASIDE:
            return None
        return [lazy_clone(x) if depends(x) else x for x in leaves.values]

    def _cross(self, call: Call, side: Side, leaves: Leaves) -> list[Any] | None:
        changed: list[Any] | None = None
        with unhooked():
            for leaf, x in enumerate(leaves.values):
                if not depends(x):
                    continue
                layout = self._placing.layout(call, side, x)
                copy = lazy_clone(x)
                hand_on(x, copy)
                boundary = Boundary(x, copy, layout, leaf)
                call.side(side).append(boundary)
                self._placing.note(boundary)
                if self._on_boundary is not None:
                    self._on_boundary(call, side, boundary)
                changed = changed or list(leaves.values)
                changed[leaf] = copy
        return changed


def depends(x: Any) -> bool:
    """Whether this is a tensor that depends on the images: nothing else requires a gradient."""
    return isinstance(x, Tensor) and x.requires_grad and x.is_floating_point()


@contextmanager
def evaluated(
    model: nn.Module,
    function: Callable[..., Tensor],
    inputs: tuple[Tensor, ...],
    on_boundary: OnBoundary | None = None,
    on_call: OnCall | None = None,
    *,
    overrides: Overrides | None = None,
) -> Iterator[Evaluation]:
    """Evaluate a function of images that calls a model; hooks and flags are undone on leaving.

    Args:
        model: its modules are looked on at.
        function: called with the inputs.
        inputs: images ``[N, C, H, W]`` that require gradients (see :func:`leaves_of`).
        on_boundary: told of every tensor that crosses a module's boundary, ``(call, side,
            boundary)``, before it goes on.
        on_call: told of every call that has ended; it may call modules, which nobody looks on at.
        overrides: layouts by module name.

    Yields:
        The evaluation, in the phase of its backward passes, if any follow.
    """
    image = (inputs[0].shape[-2], inputs[0].shape[-1])
    placing = Placing(len(inputs[0]), image, overrides or {})
    evaluation = Evaluation(model, placing, on_boundary, on_call)
    try:
        with (
            differentiable(),
            torch.enable_grad(),
            frozen(model),
            hooked(model, evaluation.enter, evaluation.leave),
        ):
            evaluation.output = function(*inputs)
            evaluation.phase = Phase.BACKWARD
            yield evaluation
    finally:
        evaluation.unwatch()


def leaves_of(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Copies of images that require gradients."""
    return tuple(x.detach().clone().requires_grad_() for x in inputs)
