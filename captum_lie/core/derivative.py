"""The Lie derivative of a function: exact, by forward mode, for many groups at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
    single = is_single(group)
    derivative = torch.cat(
        list(
            lie_derivatives(
                forward_func,
                as_tuple(inputs),
                get_groups(group),
                target=target,
                args=additional_forward_args,
                output_layout=output_layout,
                internal_batch_size=internal_batch_size,
            )
        ),
        dim=1,
    )
    return derivative[0] if single else derivative


def lie_derivatives(
    forward_func: ForwardFunc,
    inputs: tuple[Tensor, ...],
    groups: Sequence[OneParameterGroup],
    *,
    output_fn: OutputFn | None = None,
    target: TargetType = None,
    args: object = None,
    output_layout: OutputLayout = "trivial",
    internal_batch_size: int | None = None,
) -> Iterator[Tensor]:
    """:func:`lie_derivative` as a stream over examples: chunks ``[G, n, ...]``."""
    one_of("output_layout", output_layout, ("trivial", "image"))
    basis, mixing = tangent_basis(groups)

    def generators(xs: tuple[Tensor, ...], _first: int) -> tuple[Tensor, ...]:
        return tuple(torch.stack([g.generator(x) for g in basis]) for x in xs)

    for function, xs, derivative in derivatives_along(
        forward_func,
        inputs,
        generators,
        len(basis),
        output_fn=output_fn,
        target=target,
        args=args,
        internal_batch_size=internal_batch_size,
    ):
        if output_layout == "image":
            with torch.no_grad():
                output = function(*xs)
            derivative = derivative - torch.stack([g.generator(output) for g in basis])
        if mixing is not None:
            mixing = mixing.to(derivative)
            derivative = torch.tensordot(mixing, derivative, dims=1)
        yield derivative


def derivatives_along(
    forward_func: ForwardFunc,
    inputs: tuple[Tensor, ...],
    tangents_at: Callable[[tuple[Tensor, ...], int], tuple[Tensor, ...]],
    n_tangents: int,
    *,
    output_fn: OutputFn | None = None,
    target: TargetType = None,
    args: object = None,
    internal_batch_size: int | None = None,
) -> Iterator[tuple[Callable[..., Tensor], tuple[Tensor, ...], Tensor]]:
    """Derivative of ``output_fn(forward_func(x))`` along any tangents, a chunk of examples a time.

    Args:
        tangents_at: ``(inputs of the chunk, index of its first example) -> tangents``, for each
            input ``[T, n, C, H, W]``.

    Yields:
        The function of the chunk's inputs, these inputs, and its derivatives ``[T, n, ...]``.
    """
    check_inputs(inputs)
    check_internal_batch_size(internal_batch_size)
    check_eval_mode(forward_func)

    def work(chunk: Chunk) -> tuple[Callable[..., Tensor], tuple[Tensor, ...], Tensor]:
        function = bind(forward_func, output_fn, chunk.target, chunk.args)
        derivative = pushforward(
            function,
            chunk.inputs,
            tangents_at(chunk.inputs, chunk.first),
            chunk_size=chunk.tangents,
            forward_func=forward_func,
        )
        return function, chunk.inputs, derivative

    yield from in_chunks(
        work,
        forward_func,
        inputs,
        args,
        target,
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

    Example:
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
