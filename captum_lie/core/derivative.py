"""The Lie derivative of a function: exact, by forward mode, for many groups at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from captum_lie.core.autodiff import pushforward
from captum_lie.core.captum_compat import (
    ForwardFunc,
    TargetType,
    run_forward,
    select_targets,
)
from captum_lie.core.chunks import Chunk, Result, in_chunks
from captum_lie.core.groups import (
    Affine,
    OneParameterGroup,
    SpatialGroup,
)
from captum_lie.core.validation import (
    check_eval_mode,
    check_inputs,
    check_internal_batch_size,
    check_output,
)

OutputFn = Callable[[Tensor], Tensor]


class Representation(Protocol):
    """How a group acts on an output that moves: a :class:`captum_lie.layouts.Layout`, say."""

    @property
    def moves(self) -> bool:
        """Whether it acts at all."""

    def generator(self, group: OneParameterGroup, x: Tensor) -> Tensor:
        """The tangent ``ξ_out(x)``, shaped like the output ``x``."""


@dataclass(frozen=True, eq=False)
class ModelFunction:
    """What is differentiated: a model, or part of what it returns, as a function of its images.

    Attributes:
        forward_func: the model, or any callable of tensors that returns one tensor ``[N, ...]``.
        output_fn: applied to the output; None for none.
        target: which output, in any form that Captum knows; None for all of them.
        args: passed on after the images, not differentiated.
        output_layout: how the output moves with the images; None if it should stay put.

    Example:
        >>> from captum_lie import get_groups
        >>> second = ModelFunction(torch.nn.Flatten(), torch.square, target=1)
        >>> images = torch.arange(1.0, 5.0).reshape(2, 1, 1, 2)
        >>> second(images)
        tensor([ 4., 16.])
        >>> list(lie_derivatives(second, (images,), get_groups("brightness")))
        [tensor([[ 8., 32.]])]
    """

    forward_func: ForwardFunc
    output_fn: OutputFn | None = None
    target: TargetType = None
    args: object = None
    output_layout: Representation | None = None

    @property
    def moving(self) -> Representation | None:
        """How the output moves; None if it stays put."""
        layout = self.output_layout
        return layout if layout is not None and layout.moves else None

    def of(self, chunk: Chunk) -> ModelFunction:
        """The same with a chunk's own targets and arguments."""
        return replace(self, target=chunk.target, args=chunk.args)

    def in_chunks(
        self,
        work: Callable[[Chunk], Result],
        inputs: tuple[Tensor, ...],
        *,
        internal_batch_size: int | None = None,
        n_tangents: int = 1,
    ) -> Iterator[Result]:
        """Results of some work on consecutive examples.

        See :func:`captum_lie.core.chunks.in_chunks`.
        """
        yield from in_chunks(
            work,
            self.forward_func,
            inputs,
            self.args,
            self.target,
            internal_batch_size=internal_batch_size,
            n_tangents=n_tangents,
        )

    def __call__(self, *images: Tensor) -> Tensor:
        output = check_output(run_forward(self.forward_func, images, None, self.args))
        return select_targets(
            output if self.output_fn is None else self.output_fn(output), self.target
        )


def lie_derivatives(
    function: ModelFunction,
    inputs: tuple[Tensor, ...],
    groups: Sequence[OneParameterGroup],
    *,
    internal_batch_size: int | None = None,
) -> Iterator[Tensor]:
    """Lie derivatives ``L f(x) = J_f(x) ξ_in(x) - ξ_out(f(x))`` as a stream over examples.

    One forward-mode evaluation serves all groups (see :func:`captum_lie.lie_derivative`).

    Yields:
        Chunks ``[G, n, ...]``.
    """
    basis, mixing = tangent_basis(groups)

    def generators(xs: tuple[Tensor, ...], _first: int) -> tuple[Tensor, ...]:
        return tuple(torch.stack([g.generator(x) for g in basis]) for x in xs)

    for chunk, derivative in derivatives_along(
        function, inputs, generators, len(basis), internal_batch_size=internal_batch_size
    ):
        moving = function.moving
        if moving is not None:
            with torch.no_grad():
                output = function.of(chunk)(*chunk.inputs)
                motion = torch.stack([moving.generator(g, output) for g in basis])
            derivative = derivative - motion
        if mixing is not None:
            mixing = mixing.to(derivative)
            derivative = torch.tensordot(mixing, derivative, dims=1)
        yield derivative


def derivatives_along(
    function: ModelFunction,
    inputs: tuple[Tensor, ...],
    tangents_at: Callable[[tuple[Tensor, ...], int], tuple[Tensor, ...]],
    n_tangents: int,
    *,
    internal_batch_size: int | None = None,
) -> Iterator[tuple[Chunk, Tensor]]:
    """Derivative of a function along any tangents, a chunk of examples a time.

    Args:
        tangents_at: ``(inputs of the chunk, index of its first example) -> tangents``, for each
            input ``[T, n, C, H, W]``.

    Yields:
        The chunk, and the function's derivatives there ``[T, n, ...]``.
    """
    check_inputs(inputs)
    check_internal_batch_size(internal_batch_size)
    check_eval_mode(function.forward_func)

    def work(chunk: Chunk) -> tuple[Chunk, Tensor]:
        derivative = pushforward(
            function.of(chunk),
            chunk.inputs,
            tangents_at(chunk.inputs, chunk.first),
            chunk_size=chunk.tangents,
            forward_func=function.forward_func,
        )
        return chunk, derivative

    yield from function.in_chunks(
        work, inputs, internal_batch_size=internal_batch_size, n_tangents=n_tangents
    )


def tangent_basis(
    groups: Sequence[OneParameterGroup],
) -> tuple[list[OneParameterGroup], Tensor | None]:
    """Fewest groups of which the given ones are linear combinations, and the coefficients.

    The Lie derivative is linear in the vector field, so nine spatial groups cost six tangents.

    Returns:
        The basis (T groups) and the mixing matrix ``[G, T]``, None where it is the identity.

    Example:
        >>> from captum_lie import get_groups
        >>> basis, mixing = tangent_basis(get_groups("all"))
        >>> len(basis), mixing.shape  # six fields of aff(2), and brightness
        (7, torch.Size([10, 7]))
    """
    basis: list[OneParameterGroup] = []
    rows: list[dict[OneParameterGroup, float]] = []
    for group in groups:
        rows.append(_expand(group, groups))
        basis.extend(member for member in rows[-1] if member not in basis)
    mixing = torch.tensor(
        [[row.get(member, 0.0) for member in basis] for row in rows], dtype=torch.float64
    )
    return basis, None if torch.equal(mixing, torch.eye(len(mixing)).double()) else mixing


def _expand(
    group: OneParameterGroup, groups: Sequence[OneParameterGroup]
) -> dict[OneParameterGroup, float]:
    """A group as a combination of basis fields, where its companions make that the cheaper way."""
    if not isinstance(group, SpatialGroup):
        return {group: 1.0}
    companions = {g for g in groups if isinstance(g, SpatialGroup) and g.rule == group.rule}
    fields = {i for g in companions for i, c in enumerate(g.direction) if c}
    if len(companions) <= len(fields):
        return {group: 1.0}
    interpolation, border = group.rule
    unit = torch.eye(6).tolist()
    return {
        Affine(tuple(unit[i]), interpolation=interpolation, border=border): c
        for i, c in enumerate(group.direction)
        if c
    }
