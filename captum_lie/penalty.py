"""``LiePenalty``: the local equivariance error as a term of a training loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from captum_lie.core.autodiff import differentiable
from captum_lie.core.captum_compat import Inputs, as_tuple
from captum_lie.core.derivative import tangent_basis
from captum_lie.core.differentiable import pushforward
from captum_lie.core.differentiable.calling import inside, on_copied_buffers
from captum_lie.core.groups import GroupLike, OneParameterGroup, get_groups
from captum_lie.core.outputs import softmax
from captum_lie.core.tangents import NoRule
from captum_lie.core.validation import check_inputs, check_output, one_of
from captum_lie.errors import UnsupportedModelError

Directions = Literal["all", "random"]
Forward = Callable[..., Any]


class LiePenalty:
    """Local equivariance error as a differentiable penalty: train a model to be invariant.

    ``P = E_x E_g ‖L_g f(x)‖² / dim`` (Gruver et al., arXiv 2210.02984, Eq. 4 and App. C.1), the
    mean over the images and the chosen groups; its gradient reaches the parameters. The Π-model's
    consistency loss ``E ‖f(T_t x) - f(x)‖² / (t² dim)`` tends to it as t → 0 (Eq. 7 and 8).

    In evaluation mode the value is the mean of :meth:`LocalEquivarianceError.score`. In training
    mode it is that of the function which training differentiates: a mask of dropout is the same for
    an image and its tangent, and batch normalisation takes its statistics from the batch, as
    constants where the images move and as functions of the parameters for the gradient. So each
    image moves by itself, as when the model is used; were the statistics to move along, a batch
    that grows brighter would look the same to the model, and brightness cost nothing.

    Args:
        groups: groups or their names, or ``"all"``. Those of another resampling rule go in as
            instances, ``Rotation(interpolation="central")``.
        output_fn: applied to the model's output, whatever it is; softmax over dimension 1 by
            default, None for none (logits, or features of a model that returns them). Outputs of
            half precision reach it in single precision.
        directions: ``"all"`` takes each group, for one tangent a group (six at most for all spatial
            ones). ``"random"`` takes one tangent an image, along ``Σ_g ± ξ_g / √G`` with signs that
            are drawn anew for each image and call; its expectation is the value of ``"all"``, and
            that of its gradient the gradient.
        seed: of the signs; processes that train together should have different ones.

    Example:
        In a training loop, at the cost of one to two plain steps more:

        >>> from torch import nn
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(48, 5))
        >>> images, labels = torch.rand(8, 3, 4, 4), torch.arange(8) % 5
        >>> penalty = LiePenalty(["rotation", "scale"], directions="random")
        >>> logits, error = penalty.with_output(model, images)
        >>> loss = nn.functional.cross_entropy(logits, labels) + 10 * error
        >>> loss.backward()

        A sum over all pixels cannot tell where they went; brightness it can:

        >>> total = lambda x: x.sum((2, 3))
        >>> flat = torch.ones(1, 3, 4, 4)
        >>> [LiePenalty(g, output_fn=None)(total, flat).item() for g in ("rotation", "brightness")]
        [0.0, 256.0]
    """

    def __init__(
        self,
        groups: GroupLike | Sequence[GroupLike],
        *,
        output_fn: Callable[[Any], Tensor] | None = softmax,
        directions: Directions = "all",
        seed: int = 0,
    ) -> None:
        one_of("directions", directions, ("all", "random"))
        self.groups = get_groups(groups)
        self.output_fn = output_fn
        self.directions = directions
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, model: Forward, images: Inputs) -> Tensor:
        """The penalty of a batch, a scalar.

        Args:
            model: a module, also one in ``DistributedDataParallel``, or any function of images.
                Its buffers, running statistics among them, stay as they are.
            images: ``[N, C, H, W]``, or a tuple of them that are transformed together.

        Raises:
            TypeError, ValueError: images that cannot be used, or an output that is no tensor.
            UnsupportedModelError: an operation lacks the derivatives that this takes.
        """
        return self._evaluate(model, images, keep_buffers=True)[1]

    def with_output(self, model: Forward, images: Inputs) -> tuple[Any, Tensor]:
        """What ``model(images)`` returns, and the penalty, from one evaluation of the model.

        Running statistics are updated once, as by any evaluation in training mode. Arguments and
        errors are those of a call.
        """
        return self._evaluate(model, images, keep_buffers=False)

    def _evaluate(
        self, model: Forward, images: Inputs, *, keep_buffers: bool
    ) -> tuple[Any, Tensor]:
        inputs = as_tuple(images)
        check_inputs(inputs)
        tangents, mixing = self._tangents(inputs)

        def work(module: Forward, *tensors: Tensor) -> tuple[Any, Tensor]:
            if keep_buffers:
                module = on_copied_buffers(module)

            def both(*xs: Tensor) -> tuple[Any, Tensor]:
                output = module(*xs)
                single = pytree.tree_map_only(Tensor, _single, output)
                return output, check_output(self.output_fn(single) if self.output_fn else single)

            split = len(inputs)
            (output, _), moved = pushforward(both, tensors[:split], tensors[split:])
            return output, torch.stack([derivative for _, derivative in moved])

        try:
            with differentiable():
                output, derivative = inside(model, work, *inputs, *tangents)
        except NoRule as error:
            raise UnsupportedModelError(
                f"The penalty cannot be differentiated: {error}. Build this part of the model from "
                "PyTorch's own operations, or take the penalty of a model without it."
            ) from error
        if mixing is not None:
            derivative = torch.tensordot(mixing.to(derivative), derivative, dims=1)
        return output, derivative.square().mean()

    def _tangents(self, inputs: tuple[Tensor, ...]) -> tuple[list[Tensor], Tensor | None]:
        """For each input the tangents ``[T, N, C, H, W]``, and how groups are made of them."""
        basis, mixing = tangent_basis(self.groups)
        if self.directions == "all":
            return [torch.stack([group.generator(x) for group in basis]) for x in inputs], mixing
        count = len(self.groups)
        signs = torch.randint(2, (len(inputs[0]), count), generator=self.generator).double() * 2 - 1
        weights = signs / count**0.5
        if mixing is not None:
            weights = weights @ mixing
        return [_combined(basis, weights.to(x), x)[None] for x in inputs], None


def _combined(groups: Sequence[OneParameterGroup], weights: Tensor, x: Tensor) -> Tensor:
    """``Σ_g w_ng ξ_g(x_n)`` with weights ``[N, G]``."""
    terms = (w.view(-1, 1, 1, 1) * g.generator(x) for g, w in zip(groups, weights.T, strict=True))
    return torch.stack(list(terms)).sum(0)


def _single(x: Tensor) -> Tensor:
    """At least single precision, where it is a floating point tensor."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
