"""``lie_derivative``: how fast a function's output changes when the image moves."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from captum_lie.core.captum_compat import ForwardFunc, Inputs, TargetType, as_tuple
from captum_lie.core.derivative import ModelFunction, lie_derivatives
from captum_lie.core.groups import GroupLike, get_groups, is_single
from captum_lie.layouts import TRIVIAL, OutputLayout, as_output_layout


def lie_derivative(
    forward_func: ForwardFunc,
    inputs: Inputs,
    group: GroupLike | Sequence[GroupLike] = "translation_x",
    *,
    target: TargetType = None,
    additional_forward_args: object = None,
    output_layout: OutputLayout = TRIVIAL,
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
        output_layout: :data:`captum_lie.layouts.TRIVIAL` if outputs should stay put (class scores);
            :data:`~captum_lie.layouts.NCHW` if they are ``[N, K, H', W']`` and should move with the
            input; any other layout with spatial axes, such as that of tokens.
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
        forward_func,
        target=target,
        args=additional_forward_args,
        output_layout=as_output_layout(output_layout),
    )
    chunks = lie_derivatives(
        function, as_tuple(inputs), get_groups(group), internal_batch_size=internal_batch_size
    )
    derivative = torch.cat(list(chunks), dim=1)
    return derivative[0] if is_single(group) else derivative
