"""Fluxes ``⟨g, ξ(x)⟩`` at every boundary of a model, from one forward and one backward pass.

For a direction v of the output, ``⟨v, C_i⟩ = ⟨g_i, ξ(x_i)⟩ - ⟨g_{i+1}, ξ(x_{i+1})⟩`` is the
contribution of module i, where g is the cotangent through that module only. The flux at a point is
itself meaningful: it is the Lie derivative of the rest of the network from there on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from captum_lie.core.autodiff import differentiable
from captum_lie.core.derivative import OutputFn, bind
from captum_lie.core.groups import OneParameterGroup
from captum_lie.core.pairing import pairings
from captum_lie.layerwise.tracing import Boundary, Call, Overrides, Side, Trace, frozen, traced


@dataclass(frozen=True)
class _Latest:
    """The flux found last in a backward pass, with what it belongs to."""

    boundary: Boundary
    gradient: Tensor  # kept alive: its memory cannot be another's meanwhile
    flux: Tensor

    def continues(self, before: Boundary, gradient: Tensor) -> bool:
        """Whether this tensor is what came out of the boundary before, with the same gradient.

        So it is wherever nothing happens between two modules, or between a module and the
        container it begins or ends: half of all boundaries and more.
        """
        here, mine = self.boundary, self.gradient
        return (
            here.original is before.copy
            and here.versions[0] == before.versions[1]
            and here.layout == before.layout
            and mine.data_ptr() == gradient.data_ptr()
            and mine.shape == gradient.shape
            and mine.stride() == gradient.stride()
        )


class Recording:
    """A model evaluated once, ready to be differentiated backward any number of times.

    Attributes:
        model: the module.
        function: ``output_fn(model(x))`` as a function of the image inputs alone.
        inputs: where it was evaluated, each ``[N, C, H, W]``.
        output: its value, ``[N, ...]``.
        calls: every module call that something depending on the input passed through.
    """

    def __init__(
        self,
        trace: Trace,
        function: Callable[..., Tensor],
        leaves: tuple[Tensor, ...],
        hooks: ExitStack,
    ) -> None:
        self._trace = trace
        self._leaves = leaves
        self.model = trace.model
        self.function = function
        self.inputs = tuple(x.detach() for x in leaves)
        self.output: Tensor = leaves[0]
        self._groups: Sequence[OneParameterGroup] = ()
        self._fluxes: dict[tuple[str, int, Side], Tensor] = {}
        self._latest: _Latest | None = None
        self._tangents: dict[int, list[Tensor]] | None = None
        self._hooks = hooks

    def expect_many(self, groups: Sequence[OneParameterGroup]) -> None:
        """Prepare for many backward passes with these groups: keep the tangents at all boundaries.

        Costs the memory of one more copy of the activations for each group.
        """
        self._groups, self._tangents = groups, {}

    @property
    def calls(self) -> list[Call]:
        return [call for call in self._trace.calls if not call.constant]

    def contributions(self, cotangent: Tensor, groups: Sequence[OneParameterGroup]) -> Tensor:
        """``⟨v, C_i⟩`` of each call for one output direction v.

        Args:
            cotangent: v for each example, shaped like the output.
            groups: G groups; all share the one backward pass.

        Returns:
            ``[R, G, N]`` in double precision, R calls; NaN where a boundary's layout is unknown.
        """
        if list(groups) != list(self._groups):
            self._tangents = None
        self._groups, self._fluxes, self._latest = groups, {}, None
        if self.output.requires_grad:
            torch.autograd.grad(
                self.output, self._leaves, cotangent, retain_graph=True, allow_unused=True
            )
        zero = torch.zeros(
            len(groups), len(self.output), dtype=torch.float64, device=self.output.device
        )
        rows = []
        for call in self.calls:
            entering = self._fluxes.get((call.name, call.index, "input"), zero)
            leaving = self._fluxes.get((call.name, call.index, "output"), zero)
            if call.idle:
                rows.append(zero)
            else:
                rows.append(entering - leaving if call.resolved else zero * torch.nan)
        return torch.stack(rows)

    def watch(self, call: Call, side: Side, boundary: Boundary) -> None:
        """Collect the flux at a boundary whenever a gradient arrives there."""
        if not boundary.layout.moves or call.idle:
            return
        key = (call.name, call.index, side)

        def arrive(gradient: Tensor) -> None:
            with torch.no_grad():
                flux = self._flux(boundary, gradient)
            self._fluxes[key] = self._fluxes[key] + flux if key in self._fluxes else flux

        # On leaving they must go: a tensor, its graph, this hook and its boundary hold each other,
        # and the garbage collector cannot see through the graph.
        self._hooks.callback(boundary.copy.register_hook(arrive).remove)

    def _flux(self, boundary: Boundary, gradient: Tensor) -> Tensor:
        """``⟨g, ξ(x)⟩`` at a boundary, ``[G, N]``; remembered for a boundary just before it."""
        if self._latest is None or not self._latest.continues(boundary, gradient):
            layout, x = boundary.layout, boundary.value
            if self._tangents is None:
                flux = pairings(self._groups, layout.to_image(gradient), layout.to_image(x))
            else:
                products = [gradient * tangent for tangent in self._kept(boundary)]
                n = layout.examples(x)
                flux = torch.stack([p.reshape(n, -1).sum(1, dtype=torch.float64) for p in products])
        else:
            flux = self._latest.flux
        self._latest = _Latest(boundary, gradient, flux)
        return flux

    def _kept(self, boundary: Boundary) -> list[Tensor]:
        assert self._tangents is not None
        if id(boundary) not in self._tangents:
            x = boundary.value
            self._tangents[id(boundary)] = [boundary.layout.generator(g, x) for g in self._groups]
        return self._tangents[id(boundary)]


@contextmanager
def recorded(
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    *,
    output_fn: OutputFn | None,
    args: object = None,
    overrides: Overrides | None = None,
) -> Iterator[Recording]:
    """Evaluate a model with all its boundaries watched; hooks and flags are undone on leaving."""
    image = (inputs[0].shape[-2], inputs[0].shape[-1])
    trace = Trace(model, len(inputs[0]), image, overrides or {})
    leaves = tuple(x.detach().clone().requires_grad_() for x in inputs)
    with (
        ExitStack() as hooks,
        differentiable(),
        torch.enable_grad(),
        frozen(model),
        traced(trace),
    ):
        recording = Recording(trace, bind(model, output_fn, None, args), leaves, hooks)
        trace.on_boundary = recording.watch
        hooks.callback(setattr, trace, "on_boundary", None)
        recording.output = recording.function(*leaves)
        trace.recording = False
        yield recording
