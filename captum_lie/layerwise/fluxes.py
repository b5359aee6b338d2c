"""Fluxes ``⟨g, ξ(x)⟩`` at every boundary of a model, from one forward and one backward pass.

For a direction v of the output, ``⟨v, C_i⟩ = ⟨g_i, ξ(x_i)⟩ - ⟨g_{i+1}, ξ(x_{i+1})⟩`` is the
contribution of module i, where g is the cotangent through that module only. The flux at a point is
itself meaningful: it is the Lie derivative of the rest of the network from there on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from captum_lie.core.autodiff import unhooked
from captum_lie.core.derivative import ModelFunction, OutputFn
from captum_lie.core.groups import OneParameterGroup
from captum_lie.core.tangents import carried, derivatives_of
from captum_lie.layerwise.evaluation import Evaluation, evaluated, leaves_of
from captum_lie.layerwise.tracing import Boundary, Call, Overrides, Side
from captum_lie.layerwise.walks import Walk, walks_of


class Recording:
    """A model evaluated once, ready to be differentiated backward any number of times.

    Attributes:
        model: the module.
        function: ``output_fn(model(x))`` as a function of the image inputs alone.
        inputs: where it was evaluated, each ``[N, C, H, W]``.
        evaluation: that evaluation.
        derivatives: of the function along the tangents that were carried, ``[T, N, ...]``.
    """

    evaluation: Evaluation
    derivatives: Tensor

    def __init__(
        self,
        model: nn.Module,
        function: Callable[..., Tensor],
        inputs: tuple[Tensor, ...],
        modules: Collection[str] | None,
        hooks: ExitStack,
    ) -> None:
        self.model, self.function = model, function
        self.inputs = inputs
        self._leaves: tuple[Tensor, ...] = ()
        self._modules = modules
        self._hooks = hooks
        self._groups: Sequence[OneParameterGroup] = ()
        self._walks: list[tuple[list[int], Walk]] = []

    @property
    def output(self) -> Tensor:
        """The function's value, ``[N, ...]``."""
        return self.evaluation.output

    @property
    def calls(self) -> list[Call]:
        """The calls to be told apart: of the chosen modules, or every one; first the model's."""
        return [call for call in self.evaluation.calls if self._is_chosen(call)]

    def evaluate(self, leaves: tuple[Tensor, ...], overrides: Overrides | None) -> None:
        """Evaluate the function on leaves of the graph; once, until the hooks go."""
        self._leaves = leaves
        evaluation = evaluated(self.model, self.function, leaves, self.watch, overrides=overrides)
        self.evaluation = self._hooks.enter_context(evaluation)

    def expect_many(self, groups: Sequence[OneParameterGroup]) -> None:
        """Prepare for many backward passes with these groups: keep the tangents at all boundaries.

        Costs the memory of one more copy of the activations for each group.
        """
        self._groups, self._walks = groups, walks_of(groups, keep=True)

    def contributions(self, cotangent: Tensor, groups: Sequence[OneParameterGroup]) -> Tensor:
        """``⟨v, C_i⟩`` of each call for one output direction v.

        Args:
            cotangent: v for each example, shaped like the output.
            groups: G groups; all share the one backward pass.

        Returns:
            ``[R, G, N]`` in double precision, R calls; NaN where a boundary's layout is unknown.
        """
        if list(groups) != list(self._groups):
            self._groups, self._walks = groups, walks_of(groups)
        for _, walk in self._walks:
            walk.begin()
        if self.output.requires_grad:
            torch.autograd.grad(
                self.output, self._leaves, cotangent, retain_graph=True, allow_unused=True
            )
        with torch.no_grad(), unhooked():
            for _, walk in self._walks:
                walk.finish()
            found = self._summed(self.calls)
            for _, walk in self._walks:
                walk.begin()
        return found

    def _summed(self, calls: list[Call]) -> Tensor:
        """The contributions of calls from the fluxes of the last pass, ``[R, G, N]``."""
        output = self.output
        shape = len(calls), len(self._groups), len(output)
        found = torch.zeros(shape, dtype=torch.float64, device=output.device)
        row = {call: i for i, call in enumerate(calls) if call.resolved and not call.idle}
        for places, walk in self._walks:
            terms = [(row[call], sign, flux) for call, sign, flux in walk.terms() if call in row]
            if not terms:
                continue
            rows, signs, fluxes = zip(*terms, strict=True)
            signed = torch.stack(fluxes) * found.new_tensor(signs)[:, None, None]
            sums = torch.zeros_like(found[:, places])
            found[:, places] = sums.index_add_(0, torch.tensor(rows, device=found.device), signed)
        found[[i for i, call in enumerate(calls) if not call.resolved]] = torch.nan
        return found

    def watch(self, call: Call, side: Side, boundary: Boundary) -> None:
        """Collect the flux at a boundary whenever a gradient arrives there."""
        if not boundary.layout.moves or not self._is_chosen(call):
            return

        def arrive(gradient: Tensor) -> None:
            with torch.no_grad(), unhooked():
                for _, walk in self._walks:
                    walk.meet(call, side, boundary, gradient)

        # On leaving they must go: a tensor, its graph, this hook and its boundary hold each other,
        # and the garbage collector cannot see through the graph.
        self._hooks.callback(boundary.copy.register_hook(arrive).remove)

    def _is_chosen(self, call: Call) -> bool:
        return self._modules is None or call.parent is None or call.name in self._modules


@contextmanager
def recorded(
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    *,
    output_fn: OutputFn | None,
    args: object = None,
    overrides: Overrides | None = None,
    modules: Collection[str] | None = None,
    tangents: tuple[Tensor, ...] | None = None,
) -> Iterator[Recording]:
    """Evaluate a model with its boundaries watched; hooks and flags are undone on leaving.

    Args:
        modules: names of the modules to tell apart, beside the model itself; None for all.
        tangents: for each input, directions ``[T, N, C, H, W]`` to carry through the evaluation.

    Raises:
        NoRule: tangents cannot be carried through an operation of the model.
    """
    with ExitStack() as hooks:
        function = ModelFunction(model, output_fn, args=args)
        recording = Recording(model, function, tuple(x.detach() for x in inputs), modules, hooks)
        if tangents is None:
            recording.evaluate(leaves_of(inputs), overrides)
        else:
            with carried(inputs, tangents) as leaves:
                recording.evaluate(leaves, overrides)
                recording.derivatives = derivatives_of(recording.output)
        yield recording
