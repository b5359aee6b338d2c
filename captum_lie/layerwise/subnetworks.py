"""``SubnetworkEquivarianceError``: how the equivariance error builds up along the network."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from typing import overload

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from captum_lie.core.autodiff import differentiable, double_backward
from captum_lie.core.captum_compat import Inputs, as_tuple, batches, log_usage
from captum_lie.core.derivative import ModelFunction
from captum_lie.core.groups import (
    DEFAULT_GROUP,
    GroupLike,
    OneParameterGroup,
    get_groups,
    is_single,
)
from captum_lie.core.validation import (
    check_eval_mode,
    check_inputs,
    check_internal_batch_size,
    is_out_of_memory,
)
from captum_lie.errors import InvalidTypeError, first_line
from captum_lie.layerwise.evaluation import OnBoundary, evaluated, leaves_of
from captum_lie.layerwise.tracing import Boundary, Call, Overrides, Side, check_overrides
from captum_lie.layerwise.tree import rows_of
from captum_lie.layouts import UNKNOWN, Layout
from captum_lie.results.subnetworks import MEASURES, SubnetworkResult

__all__ = ["MEASURES", "SubnetworkEquivarianceError", "SubnetworkResult", "head_errors"]

Tensors = tuple[Tensor, ...]
#: Evaluates the model and gives the calls, every boundary of which was read.
Evaluate = Callable[[Tensors, OnBoundary], list[Call]]
#: ``(call, layout, x, ẋ)`` of an output.
Meet = Callable[[Call, Layout, Tensor, Tensor], None]


class SubnetworkEquivarianceError:
    """Equivariance error of every head network ``f_{1..i}``, from the image to a module.

    ``L f_{1..i}(x) = ẋ_i - ξ(x_i)``, where ``ẋ_i`` is the tangent that arrives at the module's
    output when the image moves: one forward-mode pass gives all of them (Gruver et al., arXiv
    2210.02984, App. D.2). The errors do not add up; for what each module contributes to the model's
    error see :class:`~captum_lie.layerwise.LayerwiseEquivarianceError`.

    Features of different sizes can be compared in several ways, so the squared norm is given as it
    is, over √dim, and over dim (which is LEE), beside norms relative to the motion ``ξ(x)`` of the
    features themselves and to the features.

    Args:
        model: a module in evaluation mode that takes images. Its output is taken as it is (no
            softmax) and as not moving with the image.
        layouts: overrides by module name: a layout for both sides, or ``(input, output)`` with None
            for what should be inferred.

    Example:
        >>> from captum_lie.examples import load_images, load_model
        >>> images, _ = load_images(2)
        >>> result = SubnetworkEquivarianceError(load_model("cnn")).attribute(images, "rotation")
        >>> table = result.to_dataframe().set_index("module")
        >>> bool(table.loc["stem.maxpool", "relative_to_generator"] > 0)
        True
    """

    def __init__(self, model: nn.Module, layouts: Overrides | None = None) -> None:
        if not isinstance(model, nn.Module):
            raise InvalidTypeError(
                f"Subnetworks are those of a torch.nn.Module; got {type(model).__name__}."
            )
        self.model = model
        self.layouts = dict(layouts or {})
        check_overrides(model, self.layouts)

    @overload
    def attribute(  # type: ignore[overload-overlap]  # a name is a sequence of names, too
        self,
        inputs: Inputs,
        group: GroupLike = ...,
        additional_forward_args: object = ...,
        internal_batch_size: int | None = ...,
    ) -> SubnetworkResult: ...

    @overload
    def attribute(
        self,
        inputs: Inputs,
        group: Sequence[GroupLike],
        additional_forward_args: object = ...,
        internal_batch_size: int | None = ...,
    ) -> list[SubnetworkResult]: ...

    @log_usage(part_of_slo=True)
    def attribute(
        self,
        inputs: Inputs,
        group: GroupLike | Sequence[GroupLike] = DEFAULT_GROUP,
        additional_forward_args: object = None,
        internal_batch_size: int | None = None,
    ) -> SubnetworkResult | list[SubnetworkResult]:
        """Errors of all head networks for each example.

        Args:
            inputs: images ``[N, C, H, W]``, or a tuple of them that are transformed together.
            group: a group or its name; a sequence gives a list of results, one pass each.
            additional_forward_args: passed on after the inputs, not differentiated.
            internal_batch_size: at most so many examples at a time.

        Returns:
            A result, or for a sequence of groups a list of them.

        Raises:
            TypeError, ValueError: images, group, layouts or model mode are not usable.
        """
        xs = as_tuple(inputs)
        check_inputs(xs)
        check_internal_batch_size(internal_batch_size)
        check_eval_mode(self.model)
        single = is_single(group)
        groups = get_groups(group)
        parts = [
            [head_errors(self.model, x, g, args, self.layouts) for g in groups]
            for x, args, _ in batches(xs, additional_forward_args, None, internal_batch_size)
        ]
        results = [SubnetworkResult.concatenate(part) for part in zip(*parts, strict=True)]
        return results[0] if single else results


def head_errors(
    model: nn.Module,
    inputs: Tensors,
    group: OneParameterGroup,
    args: object,
    overrides: Overrides,
) -> SubnetworkResult:
    """Errors of all head networks for one batch, from one forward-mode pass."""
    norms: dict[Call, Tensor] = {}  # [3, N] each
    dims: Counter[Call] = Counter()

    def meet(call: Call, layout: Layout, x: Tensor, tangent: Tensor) -> None:
        norms[call] = norms.get(call, 0) + _squared_norms(group, layout, x, tangent, len(inputs[0]))
        dims[call] += x.numel() // len(inputs[0])

    def evaluate(leaves: Tensors, read: OnBoundary) -> list[Call]:
        function = ModelFunction(model, args=args)
        with evaluated(model, function, leaves, read, overrides=overrides) as evaluation:
            return evaluation.calls

    with torch.no_grad():
        tangents = tuple(group.generator(x) for x in inputs)
    try:
        calls = _forward_mode(evaluate, inputs, tangents, meet)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        calls = _reverse_over_reverse(evaluate, inputs, tangents, meet)
        warnings.warn(
            f"The model has an operator without forward-mode derivative ({first_line(error)}); "
            "using reverse-over-reverse, which gives the same numbers with more memory.",
            stacklevel=2,
        )
    nothing = torch.full((3, len(inputs[0])), torch.nan, dtype=torch.float64)
    table = torch.stack([norms.get(call, nothing).cpu() for call in calls], 1)
    sizes = torch.tensor([dims[call] for call in calls], dtype=torch.float64)
    return SubnetworkResult(rows_of(calls), group.name, sizes, table[0], table[1], table[2])


def _squared_norms(
    group: OneParameterGroup, layout: Layout, x: Tensor, tangent: Tensor, n: int
) -> Tensor:
    """``‖ẋ - ξ(x)‖²``, ``‖ξ(x)‖²`` and ``‖x‖²``, ``[3, N]`` in double precision."""
    if layout == UNKNOWN:
        return x.new_full((3, n), torch.nan, dtype=torch.float64)
    motion = layout.generator(group, x)
    parts = torch.stack([tangent - motion, motion, x]).reshape(3, n, -1)
    return parts.double().square().sum(2)


def _forward_mode(evaluate: Evaluate, inputs: Tensors, tangents: Tensors, meet: Meet) -> list[Call]:
    """Meet every output with its tangent on the way; nothing is kept."""

    def read(call: Call, side: Side, boundary: Boundary) -> None:
        if side == "output":
            with torch.no_grad():
                x, tangent = forward_ad.unpack_dual(boundary.copy)
                meet(call, boundary.layout, x, torch.zeros_like(x) if tangent is None else tangent)

    # Tensors require gradients so that the evaluation sees which depend on the images; no backward
    # pass follows, so the graph may forget all values.
    with saved_tensors_hooks(lambda _: None, _forgotten), forward_ad.dual_level():
        duals = [
            forward_ad.make_dual(x, t) for x, t in zip(leaves_of(inputs), tangents, strict=True)
        ]
        return evaluate(tuple(duals), read)


def _reverse_over_reverse(
    evaluate: Evaluate, inputs: Tensors, tangents: Tensors, meet: Meet
) -> list[Call]:
    """The same for models with an operator that lacks forward mode: all outputs as one vector."""
    met: list[tuple[Call, Layout, Tensor]] = []
    calls: list[Call] = []

    def read(call: Call, side: Side, boundary: Boundary) -> None:
        if side == "output":
            met.append((call, boundary.layout, boundary.copy.clone()))

    def heads(*leaves: Tensor) -> Tensor:
        calls.extend(evaluate(leaves, read))
        return torch.cat([x.flatten() for *_, x in met])

    with differentiable():
        (moved,) = double_backward(heads, inputs, tuple(t[None] for t in tangents), None)
    sizes = [x.numel() for *_, x in met]
    with torch.no_grad():
        for (call, layout, x), tangent in zip(met, moved.split(sizes), strict=True):
            meet(call, layout, x.detach(), tangent.view_as(x))
    return calls


def _forgotten(_: None) -> Tensor:
    raise RuntimeError("A backward pass ran within the model, during a forward-mode pass.")
