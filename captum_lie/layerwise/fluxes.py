"""Fluxes ``⟨g, ξ(x)⟩`` at every boundary of a model, from one forward and one backward pass.

For a direction v of the output, ``⟨v, C_i⟩ = ⟨g_i, ξ(x_i)⟩ - ⟨g_{i+1}, ξ(x_{i+1})⟩`` is the
contribution of module i, where g is the cotangent through that module only. The flux at a point is
itself meaningful: it is the Lie derivative of the rest of the network from there on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from captum_lie._autodiff import differentiable
from captum_lie.derivative import OutputFn, bind
from captum_lie.groups import OneParameterGroup, pairings
from captum_lie.layerwise.tracing import Boundary, Call, Overrides, Side, Trace, frozen, traced


class Recording:
    """A model evaluated once, ready to be differentiated backward any number of times.

    Attributes:
        calls: every module call that something depending on the input passed through.
        output: ``output_fn(model(x))``, ``[N, ...]``.
    """

    def __init__(self, trace: Trace, leaves: tuple[Tensor, ...], output: Tensor) -> None:
        self._trace = trace
        self._leaves = leaves
        self.output = output
        self._groups: Sequence[OneParameterGroup] = ()
        self._fluxes: dict[tuple[str, int, Side], Tensor] = {}
        self._tangents: dict[int, list[Tensor]] | None = None

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
        self._groups, self._fluxes = groups, {}
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
        if not boundary.layout.moves:
            return
        layout, key = boundary.layout, (call.name, call.index, side)

        def arrive(gradient: Tensor) -> None:
            with torch.no_grad():
                if self._tangents is None:
                    x = boundary.value
                    flux = pairings(self._groups, layout.to_image(gradient), layout.to_image(x))
                else:
                    flux = torch.stack(
                        [
                            (gradient * tangent).flatten(1).sum(1, dtype=torch.float64)
                            for tangent in self._kept(boundary)
                        ]
                    )
            self._fluxes[key] = self._fluxes[key] + flux if key in self._fluxes else flux

        boundary.copy.register_hook(arrive)

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
    recording = Recording(trace, leaves, leaves[0])
    trace.on_boundary = recording.watch
    with differentiable(), torch.enable_grad(), frozen(model), traced(trace):
        recording.output = bind(model, output_fn, None, args)(*leaves)
        trace.recording = False
        yield recording
