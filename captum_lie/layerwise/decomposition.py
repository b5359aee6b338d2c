"""One batch of images, decomposed: what is asked, and how it is answered."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from captum_lie.core.captum_compat import TargetType
from captum_lie.core.derivative import ModelFunction, lie_derivatives, tangent_basis
from captum_lie.core.groups import OneParameterGroup
from captum_lie.core.probes import Probes
from captum_lie.core.validation import is_out_of_memory, one_of
from captum_lie.errors import InvalidTypeError, InvalidValueError
from captum_lie.layerwise.directions import aligned, one_hot
from captum_lie.layerwise.fluxes import Recording, recorded
from captum_lie.layerwise.probes import NormEstimate, squared_norms
from captum_lie.layerwise.totals import totals
from captum_lie.layerwise.tracing import Overrides
from captum_lie.layerwise.tree import rows_of, self_contributions
from captum_lie.results.layerwise import LayerwiseResult
from captum_lie.results.rows import Row

Measure = Literal["aligned", "norm", "target"]
MEASURES: tuple[Measure, ...] = ("aligned", "norm", "target")


@dataclass(frozen=True)
class Question:
    """What is asked of every batch; see :meth:`captum_lie.LayerwiseEquivarianceError.attribute`."""

    measure: Measure
    probes: Probes
    layouts: Overrides
    modules: Collection[str] | None = None

    def check(self, model: nn.Module, target: TargetType) -> None:
        """Raise ``ValueError`` or ``TypeError`` where its parts do not belong together."""
        one_of("measure", self.measure, MEASURES)
        if self.measure == "target" and target is None:
            raise InvalidValueError("measure='target' needs target=, the output to explain.")
        if self.measure != "target" and target is not None:
            raise InvalidValueError(f"target belongs to measure='target', not {self.measure!r}.")
        probed = self.probes.n is not None or self.probes.tolerance is not None
        if self.measure != "norm" and probed:
            raise InvalidValueError(
                f"n_probes and tolerance belong to measure='norm', not {self.measure!r}."
            )
        if isinstance(self.modules, str):
            raise InvalidTypeError(
                f"modules must be a collection of names; got the one name {self.modules!r}. "
                f"Put it into a list: [{self.modules!r}]."
            )
        known = sorted(name for name, _ in model.named_modules())
        for name in self.modules or ():
            one_of("module", name, known)


def decompose(
    function: ModelFunction,
    inputs: tuple[Tensor, ...],
    groups: Sequence[OneParameterGroup],
    question: Question,
    *,
    first_index: int = 0,
) -> list[LayerwiseResult]:
    """A result for each group.

    Args:
        function: the model, a module, with what follows it; its target only for ``target``.
        first_index: of the first example; it determines the probes.

    Raises:
        ValueError: a layout does not fit, or a chosen module never ran.
    """
    if question.measure == "target":
        found = _target(function, inputs, groups, question)
    elif question.measure == "aligned":
        found = _aligned(function, inputs, groups, question)
    else:
        found = _norm(function, inputs, groups, question, first_index)
    estimate = found.estimate
    return [
        LayerwiseResult(
            rows=found.rows,
            group=group.name,
            measure=question.measure,
            total=found.total[i].cpu(),
            contributions=found.contributions[:, i].cpu(),
            self_contributions=found.own[:, i].cpu(),
            stderr=None if estimate is None else estimate.stderr[:, i].cpu() / found.dim,
            method="exact" if estimate is None else estimate.method,
        )
        for i, group in enumerate(groups)
    ]


@dataclass(frozen=True)
class _Found:
    """Of all groups: the total ``[G, N]``, contributions and self contributions ``[R, G, N]``."""

    rows: list[Row]
    total: Tensor
    contributions: Tensor
    own: Tensor
    estimate: NormEstimate | None = None
    dim: int = 1


def _target(
    function: ModelFunction,
    inputs: tuple[Tensor, ...],
    groups: Sequence[OneParameterGroup],
    question: Question,
) -> _Found:
    with _recorded(function, inputs, question) as recording:
        values = recording.contributions(one_hot(recording.output, function.target), groups)
        rows = rows_of(recording.calls)
    own = self_contributions(rows, values)
    sizes = own.abs().nansum(0)
    total = totals(function, inputs, groups, sums=own.nansum(0), sizes=sizes)
    return _Found(rows, total, values, own)


def _aligned(
    function: ModelFunction,
    inputs: tuple[Tensor, ...],
    groups: Sequence[OneParameterGroup],
    question: Question,
) -> _Found:
    """A single tangent rides on the recorded evaluation, wherever it can be carried through.

    Several would take more memory, and no less time than an evaluation of their own.
    """
    basis, mixing = tangent_basis(groups)
    if len(basis) == 1:
        try:
            with torch.no_grad():
                tangents = tuple(basis[0].generator(x)[None] for x in inputs)
            with _recorded(function, inputs, question, tangents) as recording:
                return _along(recording, recording.derivatives, basis, mixing)
        except Exception as error:  # whatever is wrong, the two apart know better
            if is_out_of_memory(error):
                raise
    derivatives = torch.cat(list(lie_derivatives(function, inputs, basis)), 1)
    with _recorded(function, inputs, question) as recording:
        return _along(recording, derivatives, basis, mixing)


def _along(
    recording: Recording,
    derivatives: Tensor,
    basis: list[OneParameterGroup],
    mixing: Tensor | None,
) -> _Found:
    """What is aligned with the derivatives along the basis, ``[T, N, ...]``."""
    values = aligned(recording, derivatives / derivatives[0, 0].numel(), basis, mixing)
    rows = rows_of(recording.calls)
    total = _mean_square(derivatives, mixing)
    return _Found(rows, total, values, self_contributions(rows, values))


def _norm(
    function: ModelFunction,
    inputs: tuple[Tensor, ...],
    groups: Sequence[OneParameterGroup],
    question: Question,
    first_index: int,
) -> _Found:
    basis, mixing = tangent_basis(groups)
    derivatives = torch.cat(list(lie_derivatives(function, inputs, basis)), 1)
    dim = derivatives[0, 0].numel()
    with _recorded(function, inputs, question) as recording:
        found = squared_norms(recording, groups, question.probes, first_index=first_index)
        rows = rows_of(recording.calls)
    total = _mean_square(derivatives, mixing)
    return _Found(rows, total, found.total / dim, found.own / dim, found, dim)


def _mean_square(derivatives: Tensor, mixing: Tensor | None) -> Tensor:
    """LEE of each group and example, ``[G, N]``, from the derivatives along the basis."""
    each = derivatives.double().flatten(2)
    if mixing is not None:
        each = torch.tensordot(mixing.to(each), each, dims=1)
    return each.square().mean(2)


@contextmanager
def _recorded(
    function: ModelFunction,
    inputs: tuple[Tensor, ...],
    question: Question,
    tangents: tuple[Tensor, ...] | None = None,
) -> Iterator[Recording]:
    """The model evaluated, the chosen modules' boundaries watched."""
    model = function.forward_func
    assert isinstance(model, nn.Module)
    with recorded(
        model,
        inputs,
        output_fn=function.output_fn,
        args=function.args,
        overrides=question.layouts,
        modules=question.modules,
        tangents=tangents,
    ) as recording:
        ran = {call.name for call in recording.calls}
        if never := [name for name in question.modules or () if name not in ran]:
            raise InvalidValueError(
                f"The module {never[0]!r} never ran on anything that depends on the images."
            )
        yield recording
