"""``SubnetworkEquivarianceError``: how the equivariance error builds up along the network."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import overload

import pandas as pd
import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from captum_lie.core.autodiff import differentiable, double_backward
from captum_lie.core.captum_compat import Inputs, as_tuple, batches, log_usage
from captum_lie.core.derivative import bind
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
from captum_lie.layerwise.tracing import (
    Boundary,
    Call,
    Overrides,
    Side,
    Trace,
    check_overrides,
    frozen,
    traced,
)
from captum_lie.layerwise.tree import rows_of
from captum_lie.layouts import UNKNOWN, Layout
from captum_lie.results.averages import mean_and_stderr
from captum_lie.results.rows import Row, check_same_rows

Tensors = tuple[Tensor, ...]
Read = Callable[[Call, Side, Boundary], None]
Evaluate = Callable[[Tensors, Read], list[Call]]
Meet = Callable[[Call, Layout, Tensor, Tensor], None]


@dataclass(frozen=True)
class SubnetworkResult:
    """Equivariance errors of every head network, from the image to the output of one module call.

    Attributes:
        rows: the module calls, in the order in which they began; the first is the model itself.
        group: name of the group.
        dims: numbers in one example's output, ``[R]``.
        squared_norm: ``‖ẋ - ξ(x)‖²``, the squared norm of ``L f_{1..i}``, ``[R, N]``; NaN where
            the layout is unknown.
        squared_generator: ``‖ξ(x)‖²``, ``[R, N]``.
        squared_features: ``‖x‖²``, ``[R, N]``.

    Example:
        The error of the network up to its pooling, as a share of how much its features move:

        >>> from captum_lie.examples import load_images, load_model
        >>> images, _ = load_images(4)
        >>> result = SubnetworkEquivarianceError(load_model("cnn")).attribute(images, "scale")
        >>> names = [row.module for row in result.rows]
        >>> share = result.relative_to_generator[names.index("stem.maxpool")]
        >>> share.shape, bool((share > 0.1).all())
        (torch.Size([4]), True)
    """

    rows: list[Row]
    group: str
    dims: Tensor
    squared_norm: Tensor
    squared_generator: Tensor
    squared_features: Tensor

    @property
    def lee(self) -> Tensor:
        """Mean square per dimension, ``‖L f_{1..i}‖² / dim``, ``[R, N]``."""
        return self.squared_norm / self.dims[:, None]

    @property
    def per_root_dim(self) -> Tensor:
        """``‖L f_{1..i}‖² / √dim``, ``[R, N]``."""
        return self.squared_norm / self.dims[:, None].sqrt()

    @property
    def relative_to_generator(self) -> Tensor:
        """``‖ẋ - ξ(x)‖ / ‖ξ(x)‖``, ``[R, N]``; NaN where nothing moves (trivial layouts)."""
        return _ratio(self.squared_norm, self.squared_generator)

    @property
    def relative_to_features(self) -> Tensor:
        """``‖ẋ - ξ(x)‖ / ‖x‖``, ``[R, N]``; NaN where ``x`` is zero."""
        return _ratio(self.squared_norm, self.squared_features)

    def to_dataframe(self) -> pd.DataFrame:
        """A row per module call, means over the examples and their standard errors.

        Columns: ``module, type, kind, call, depth, is_leaf, output_layout, dim``, and each of
        ``squared_norm, per_root_dim, lee, relative_to_generator, relative_to_features`` with a
        ``…_stderr`` beside it (NaN for one example).
        """
        described = ["module", "type", "kind", "call", "depth", "is_leaf", "output_layout"]
        table = pd.DataFrame([vars(row) for row in self.rows])[described]
        table["dim"] = self.dims.long().numpy()
        for name in MEASURES:
            values: Tensor = getattr(self, name)
            mean, stderr = mean_and_stderr(values)
            table[name], table[f"{name}_stderr"] = mean.numpy(), stderr.numpy()
        return table

    @staticmethod
    def concatenate(parts: Sequence[SubnetworkResult]) -> SubnetworkResult:
        """Results of consecutive examples as one.

        Raises:
            ValueError: the model did not make the same calls for all of them.
        """
        first = parts[0]
        check_same_rows([part.rows for part in parts])
        return replace(
            first,
            squared_norm=torch.cat([part.squared_norm for part in parts], 1),
            squared_generator=torch.cat([part.squared_generator for part in parts], 1),
            squared_features=torch.cat([part.squared_features for part in parts], 1),
        )


#: What the table shows of each subnetwork.
MEASURES: tuple[str, ...] = (
    "squared_norm",
    "per_root_dim",
    "lee",
    "relative_to_generator",
    "relative_to_features",
)


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
    def attribute(  # type: ignore[overload-overlap]
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

    @log_usage(part_of_slo=True)  # type: ignore[untyped-decorator]
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

    with torch.no_grad():
        tangents = tuple(group.generator(x) for x in inputs)
    evaluate = partial(_evaluate, model, bind(model, None, None, args), overrides)
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

    # Tensors require gradients so that the trace sees which depend on the images; no backward pass
    # follows, so the graph may forget all values.
    with saved_tensors_hooks(lambda _: None, _forgotten), forward_ad.dual_level():
        duals = [
            forward_ad.make_dual(x.detach().clone().requires_grad_(), t)
            for x, t in zip(inputs, tangents, strict=True)
        ]
        return evaluate(tuple(duals), read)


def _reverse_over_reverse(
    evaluate: Evaluate, inputs: Tensors, tangents: Tensors, meet: Meet
) -> list[Call]:
    """The same for models with an operator that lacks forward mode: all outputs as one vector."""
    met: list[tuple[Call, Layout, Tensor]] = []
    calls: list[Call] = []

    def heads(*leaves: Tensor) -> Tensor:
        def read(call: Call, side: Side, boundary: Boundary) -> None:
            if side == "output":
                met.append((call, boundary.layout, boundary.copy.clone()))

        calls.extend(evaluate(leaves, read))
        return torch.cat([x.flatten() for *_, x in met])

    with differentiable():
        (moved,) = double_backward(heads, inputs, tuple(t[None] for t in tangents), None)
    sizes = [x.numel() for *_, x in met]
    with torch.no_grad():
        for (call, layout, x), tangent in zip(met, moved.split(sizes), strict=True):
            meet(call, layout, x.detach(), tangent.view_as(x))
    return calls


def _evaluate(
    model: nn.Module,
    function: Callable[..., Tensor],
    overrides: Overrides,
    inputs: Tensors,
    read: Read,
) -> list[Call]:
    """The calls of one evaluation, every boundary of which was read."""
    trace = Trace(model, len(inputs[0]), (inputs[0].shape[-2], inputs[0].shape[-1]), overrides)
    trace.on_boundary = read
    with differentiable(), torch.enable_grad(), frozen(model), traced(trace):
        function(*inputs)
    return [call for call in trace.calls if not call.constant]


def _forgotten(_: None) -> Tensor:
    raise RuntimeError("A backward pass ran within the model, during a forward-mode pass.")


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Root of a quotient, NaN where there is nothing to compare with."""
    return (numerator / denominator.masked_fill(denominator == 0, torch.nan)).sqrt()
