"""Fluxes ``⟨g, ξ(x)⟩`` at every boundary of a model, from one forward and one backward pass.

For a direction v of the output, ``⟨v, C_i⟩ = ⟨g_i, ξ(x_i)⟩ - ⟨g_{i+1}, ξ(x_{i+1})⟩`` is the
contribution of module i, where g is the cotangent through that module only. The flux at a point is
itself meaningful: it is the Lie derivative of the rest of the network from there on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from captum_lie.core.autodiff import unhooked
from captum_lie.core.derivative import OutputFn, bind
from captum_lie.core.groups import OneParameterGroup
from captum_lie.core.pairing import Pairing, PairingQueue
from captum_lie.layerwise.evaluation import Evaluation, evaluated, leaves_of
from captum_lie.layerwise.tracing import Boundary, Call, Overrides, Side


@dataclass(frozen=True)
class _Latest:
    """The flux found last in a backward pass, with what it belongs to."""

    boundary: Boundary
    gradient: Tensor
    flux: Pairing

    def continues(self, before: Boundary, gradient: Tensor) -> bool:
        """Whether this tensor is what came out of the boundary before, with the same gradient.

        So it is wherever nothing happens between two modules, or between a module and the
        container it begins or ends: half of all boundaries and more. A clone hands its gradient on
        as it is, and where others join it, autograd makes their sum another tensor.
        """
        here = self.boundary
        return (
            gradient is self.gradient
            and here.original is before.copy
            and here.versions[0] == before.versions[1]
            and here.layout == before.layout
        )


class Recording:
    """A model evaluated once, ready to be differentiated backward any number of times.

    Attributes:
        model: the module.
        function: ``output_fn(model(x))`` as a function of the image inputs alone.
        inputs: where it was evaluated, each ``[N, C, H, W]``.
        evaluation: that evaluation.
    """

    evaluation: Evaluation

    def __init__(
        self,
        model: nn.Module,
        function: Callable[..., Tensor],
        leaves: tuple[Tensor, ...],
        modules: Collection[str] | None,
        hooks: ExitStack,
    ) -> None:
        self.model, self.function = model, function
        self.inputs = tuple(x.detach() for x in leaves)
        self._leaves = leaves
        self._modules = modules
        self._hooks = hooks
        self._groups: Sequence[OneParameterGroup] = ()
        self._queue = PairingQueue(())
        self._fluxes: dict[tuple[Call, Side], list[Pairing]] = {}
        self._latest: _Latest | None = None
        self._tangents: dict[Boundary, list[Tensor]] | None = None

    @property
    def output(self) -> Tensor:
        """The function's value, ``[N, ...]``."""
        return self.evaluation.output

    @property
    def calls(self) -> list[Call]:
        """The calls to be told apart: of the chosen modules, or every one; first the model's."""
        return [call for call in self.evaluation.calls if self._is_chosen(call)]

    def expect_many(self, groups: Sequence[OneParameterGroup]) -> None:
        """Prepare for many backward passes with these groups: keep the tangents at all boundaries.

        Costs the memory of one more copy of the activations for each group.
        """
        self._groups, self._tangents = groups, {}

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
        self._groups, self._queue = groups, PairingQueue(groups)
        self._fluxes, self._latest = {}, None
        if self.output.requires_grad:
            torch.autograd.grad(
                self.output, self._leaves, cotangent, retain_graph=True, allow_unused=True
            )
        self._latest = None
        with torch.no_grad(), unhooked():
            self._queue.finish()
            return torch.stack([self._contribution(call) for call in self.calls])

    def _contribution(self, call: Call) -> Tensor:
        """What flows into a call minus what flows out of it, ``[G, N]``."""
        output = self.output
        total = output.new_zeros(len(self._groups), len(output), dtype=torch.float64)
        if not call.resolved:
            return total.fill_(torch.nan)
        for flux in self._fluxes.get((call, "input"), ()):
            total += flux.value
        for flux in self._fluxes.get((call, "output"), ()):
            total -= flux.value
        return total

    def watch(self, call: Call, side: Side, boundary: Boundary) -> None:
        """Collect the flux at a boundary whenever a gradient arrives there."""
        if not boundary.layout.moves or call.idle or not self._is_chosen(call):
            return

        def arrive(gradient: Tensor) -> None:
            with torch.no_grad(), unhooked():
                flux = self._flux(boundary, gradient)
            self._fluxes.setdefault((call, side), []).append(flux)

        # On leaving they must go: a tensor, its graph, this hook and its boundary hold each other,
        # and the garbage collector cannot see through the graph.
        self._hooks.callback(boundary.copy.register_hook(arrive).remove)

    def _is_chosen(self, call: Call) -> bool:
        return self._modules is None or call.parent is None or call.name in self._modules

    def _flux(self, boundary: Boundary, gradient: Tensor) -> Pairing:
        """``⟨g, ξ(x)⟩`` at a boundary; remembered for a boundary just before it."""
        if self._latest is not None and self._latest.continues(boundary, gradient):
            flux = self._latest.flux
        elif self._tangents is None:
            layout, x = boundary.layout, boundary.value
            flux = self._queue.put(layout.to_image(gradient), layout.to_image(x))
        else:
            n = boundary.layout.examples(gradient)
            products = [gradient * tangent for tangent in self._kept(boundary)]
            sums = [p.reshape(n, -1).sum(1, dtype=torch.float64) for p in products]
            flux = Pairing(torch.stack(sums))
        self._latest = _Latest(boundary, gradient, flux)
        return flux

    def _kept(self, boundary: Boundary) -> list[Tensor]:
        assert self._tangents is not None
        if boundary not in self._tangents:
            x = boundary.value
            self._tangents[boundary] = [boundary.layout.generator(g, x) for g in self._groups]
        return self._tangents[boundary]


@contextmanager
def recorded(
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    *,
    output_fn: OutputFn | None,
    args: object = None,
    overrides: Overrides | None = None,
    modules: Collection[str] | None = None,
) -> Iterator[Recording]:
    """Evaluate a model with its boundaries watched; hooks and flags are undone on leaving.

    Args:
        modules: names of the modules to tell apart, beside the model itself; None for all.
    """
    leaves = leaves_of(inputs)
    with ExitStack() as hooks:
        function = bind(model, output_fn, None, args)
        recording = Recording(model, function, leaves, modules, hooks)
        evaluation = evaluated(model, function, leaves, recording.watch, overrides=overrides)
        recording.evaluation = hooks.enter_context(evaluation)
        yield recording
