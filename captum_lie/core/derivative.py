"""The Lie derivative of a function: exact, by forward mode, for many groups at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from captum_lie.core.autodiff import pushforward
from captum_lie.core.captum_compat import (
    ForwardFunc,
    Inputs,
    TargetType,
    as_tuple,
    run_forward,
    select_targets,
)
from captum_lie.core.chunks import Chunk, in_chunks
from captum_lie.core.groups import (
    Affine,
    GroupLike,
    OneParameterGroup,
    SpatialGroup,
    get_groups,
    is_single,
)
from captum_lie.core.validation import (
    check_eval_mode,
    check_inputs,
    check_internal_batch_size,
    check_output,
    one_of,
)

OutputLayout = Literal["trivial", "image"]
OutputFn = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class ModelFunction:
    """What is differentiated: a model, or part of what it returns, as a function of its images.

    Attributes:
        forward_func: the model, or any callable of tensors that returns one tensor ``[N, ...]``.
        output_fn: applied to the output; None for none.
        target: which output, in any form that Captum knows; None for all of them.
        args: passed on after the images, not differentiated.
        output_layout: whether the output moves with the images, see :func:`lie_derivative`.

    Raises:
        ValueError: an unknown output layout.

    Example:
        >>> second = ModelFunction(torch.nn.Flatten(), torch.square, target=1)
        >>> images = torch.arange(1.0, 5.0).reshape(2, 1, 1, 2)
        >>> list(lie_derivatives(second, (images,), get_groups("brightness")))
        [tensor([[ 8., 32.]])]
    """

    forward_func: ForwardFunc
    output_fn: OutputFn | None = None
    target: TargetType = None
    args: object = None
    output_layout: OutputLayout = "trivial"

    def __post_init__(self) -> None:
        one_of("output_layout", self.output_layout, ("trivial", "image"))

    def on(self, chunk: Chunk) -> Callable[..., Tensor]:
        """The function of a chunk's images, with its own targets and arguments."""
        return bind(self.forward_func, self.output_fn, chunk.target, chunk.args)


def lie_derivative(
    forward_func: ForwardFunc,
    inputs: Inputs,
    group: GroupLike | Sequence[GroupLike] = "translation_x",
    *,
    target: TargetType = None,
    additional_forward_args: object = None,
    output_layout: OutputLayout = "trivial",
    internal_batch_size: int | None = None,
) -> Tensor:
    """Lie derivative ``L f(x) = J_f(x) ξ_in(x) - ξ_out(f(x))``, no sampling.

    Gruver et al., arXiv 2210.02984, Eq. 3. One forward-mode evaluation serves all groups: spatial
    groups are combinations of at most six tangents, one for each basis field of aff(2).

    Args:
        forward_func: the model, or any callable of tensors that returns one tensor ``[N, ...]``.
        inputs: images ``[N, C, H, W]``, or a tuple of them that are transformed together.
        group: a group or its name, or a sequence of them.
        target: output index as anywhere in Captum; by default the whole output.
        additional_forward_args: passed on after the inputs, not differentiated.
        output_layout: ``"trivial"`` if outputs should stay put (class scores), ``"image"`` if the
            output is ``[N, K, H', W']`` and should move with the input.
        internal_batch_size: at most so many examples × tangents at a time; by default as many as
            run fast and fit the memory.

    Returns:
        ``[N, ...]`` like the output, for a sequence of G groups ``[G, N, ...]``. Units: output per
        unit of the group's parameter.

    Raises:
        TypeError, ValueError: images, groups, layout or model mode are not usable.
        AssertionError: bad target (by Captum).

    Example:
        >>> x = torch.rand(2, 3, 8, 8)
        >>> lie_derivative(lambda x: x.mean((2, 3)), x, ["rotation", "brightness"]).shape
        torch.Size([2, 2, 3])
    """
    function = ModelFunction(
        forward_func, target=target, args=additional_forward_args, output_layout=output_layout
    )
    chunks = lie_derivatives(
        function, as_tuple(inputs), get_groups(group), internal_batch_size=internal_batch_size
    )
    derivative = torch.cat(list(chunks), dim=1)
    return derivative[0] if is_single(group) else derivative


def lie_derivatives(
    function: ModelFunction,
    inputs: tuple[Tensor, ...],
    groups: Sequence[OneParameterGroup],
    *,
    internal_batch_size: int | None = None,
) -> Iterator[Tensor]:
    """:func:`lie_derivative` as a stream over examples: chunks ``[G, n, ...]``."""
    basis, mixing = tangent_basis(groups)

    def generators(xs: tuple[Tensor, ...], _first: int) -> tuple[Tensor, ...]:
        return tuple(torch.stack([g.generator(x) for g in basis]) for x in xs)

    for chunk, derivative in derivatives_along(
        function, inputs, generators, len(basis), internal_batch_size=internal_batch_size
    ):
        if function.output_layout == "image":
            with torch.no_grad():
                output = function.on(chunk)(*chunk.inputs)
            derivative = derivative - torch.stack([g.generator(output) for g in basis])
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
            function.on(chunk),
            chunk.inputs,
            tangents_at(chunk.inputs, chunk.first),
            chunk_size=chunk.tangents,
            forward_func=function.forward_func,
        )
        return chunk, derivative

    yield from in_chunks(
        work,
        function.forward_func,
        inputs,
        function.args,
        function.target,
        internal_batch_size=internal_batch_size,
        n_tangents=n_tangents,
    )


def bind(
    forward_func: ForwardFunc, output_fn: OutputFn | None, target: TargetType, args: object
) -> Callable[..., Tensor]:
    """The model as a function of its image inputs alone."""

    def function(*xs: Tensor) -> Tensor:
        output = check_output(run_forward(forward_func, xs, None, args))
        return select_targets(output if output_fn is None else output_fn(output), target)

    return function


def tangent_basis(
    groups: Sequence[OneParameterGroup],
) -> tuple[list[OneParameterGroup], Tensor | None]:
    """Fewest groups of which the given ones are linear combinations, and the coefficients.

    The Lie derivative is linear in the vector field, so nine spatial groups cost six tangents.

    Returns:
        The basis (T groups) and the mixing matrix ``[G, T]``, None where it is the identity.
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
