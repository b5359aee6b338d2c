"""``LieDerivative``: which pixels move a class score when the image moves."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from captum_lie.attribution.derivative import lie_derivative
from captum_lie.core.autodiff import differentiable
from captum_lie.core.captum_compat import (
    ForwardFunc,
    GradientAttribution,
    Inputs,
    TargetType,
    as_tuple,
    like_inputs,
    log_usage,
    sum_per_example,
)
from captum_lie.core.chunks import Chunk
from captum_lie.core.derivative import ModelFunction
from captum_lie.core.groups import DEFAULT_GROUP, GroupLike, get_group
from captum_lie.core.validation import check_eval_mode, check_inputs, check_internal_batch_size


class LieDerivative(GradientAttribution):
    """Attribution of the Lie derivative of one output to the pixels.

    ``a = ∂f_k/∂x ⊙ ξ(x)``, the gradient times the motion of each pixel. The attributions sum to
    ``L f_k``, the rate at which output k changes when the image is transformed by the group
    (Gruver et al., arXiv 2210.02984, Eq. 3, trivial output).

    Args:
        forward_func: the model, or any callable that returns one tensor ``[N, K]``, ``[N]`` or
            ``[N, K, ...]``.

    Example:
        >>> from captum_lie import LieDerivative, Rotation
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 5))
        >>> x = torch.rand(2, 3, 4, 4)
        >>> attribution = LieDerivative(model).attribute(x, target=1, group=Rotation())
        >>> attribution.shape
        torch.Size([2, 3, 4, 4])
    """

    def __init__(self, forward_func: ForwardFunc) -> None:
        super().__init__(forward_func)

    @log_usage(part_of_slo=True)
    def attribute(
        self,
        inputs: Inputs,
        target: TargetType = None,
        additional_forward_args: object = None,
        group: GroupLike = DEFAULT_GROUP,
        internal_batch_size: int | None = None,
        return_convergence_delta: bool = False,
    ) -> Any:
        """Attribute the Lie derivative of the target output to the inputs.

        Args:
            inputs: images ``[N, C, H, W]``, or a tuple of them that are transformed together.
            target: which output, in any form that Captum knows.
            additional_forward_args: passed on after the inputs, not differentiated.
            group: a group or its name (``"rotation"``, ``"translation_x"``, ...).
            internal_batch_size: at most so many examples at a time.
            return_convergence_delta: also return the difference between the attributions' sum
                (reverse mode) and the same derivative by forward mode.

        Returns:
            Attributions shaped like the inputs (a tuple for a tuple), in units of the output per
            unit of the group's parameter; with ``return_convergence_delta`` also ``delta [N]``.

        Raises:
            TypeError, ValueError: images, group or model mode are not usable.
            AssertionError: bad target (by Captum).
        """
        xs = as_tuple(inputs)
        resolved = get_group(group)
        check_inputs(xs)
        check_internal_batch_size(internal_batch_size)
        check_eval_mode(self.forward_func)

        def work(chunk: Chunk) -> list[Tensor]:
            with differentiable(), torch.enable_grad():
                leaves = tuple(image.detach().clone().requires_grad_() for image in chunk.inputs)
                checked = ModelFunction(self.forward_func, args=chunk.args)
                gradients = self.gradient_func(checked, leaves, chunk.target)
            with torch.no_grad():
                pairs = zip(gradients, chunk.inputs, strict=True)
                return [g * resolved.generator(x) for g, x in pairs]

        function = ModelFunction(self.forward_func, None, target, additional_forward_args)
        parts = function.in_chunks(work, xs, internal_batch_size=internal_batch_size)
        attributions = tuple(torch.cat(part) for part in zip(*parts, strict=True))
        result = like_inputs(inputs, attributions)
        if not return_convergence_delta:
            return result
        delta = self.compute_convergence_delta(
            result, inputs, target, additional_forward_args, resolved, internal_batch_size
        )
        return result, delta

    def has_convergence_delta(self) -> bool:
        """True: reverse mode is checked against forward mode."""
        return True

    def compute_convergence_delta(
        self,
        attributions: Inputs,
        inputs: Inputs,
        target: TargetType = None,
        additional_forward_args: object = None,
        group: GroupLike = DEFAULT_GROUP,
        internal_batch_size: int | None = None,
    ) -> Tensor:
        """Sum of the attributions minus the derivative by forward mode, ``[N]``.

        Both are exact, so anything beyond rounding means that an operator's derivative is wrong.
        """
        forward = lie_derivative(
            self.forward_func,
            inputs,
            get_group(group),
            target=target,
            additional_forward_args=additional_forward_args,
            internal_batch_size=internal_batch_size,
        )
        return sum_per_example(as_tuple(attributions)) - forward.reshape(len(forward))
