"""``LayerwiseEquivarianceError``: which modules cause a model's equivariance error."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict, overload

from torch import nn

from captum_lie.core.captum_compat import (
    Inputs,
    TargetType,
    as_tuple,
    batches,
    log_usage,
)
from captum_lie.core.derivative import ModelFunction, OutputFn
from captum_lie.core.groups import (
    DEFAULT_GROUP,
    GroupLike,
    get_groups,
    is_single,
)
from captum_lie.core.loaders import labels_of, over_batches
from captum_lie.core.outputs import softmax
from captum_lie.core.probes import Probes
from captum_lie.core.validation import check_eval_mode, check_inputs, check_internal_batch_size
from captum_lie.errors import InvalidTypeError
from captum_lie.layerwise.decomposition import Measure, Question, decompose
from captum_lie.layerwise.tracing import Overrides, check_overrides, check_whole
from captum_lie.results.layerwise import LayerwiseResult

if TYPE_CHECKING:
    from typing_extensions import Unpack


class AttributionOptions(TypedDict, total=False):
    """Keywords of :meth:`LayerwiseEquivarianceError.attribute` that hold for a whole data set."""

    n_probes: int | None
    tolerance: float | None
    seed: int
    internal_batch_size: int | None
    modules: Collection[str] | None


class LayerwiseEquivarianceError:
    r"""Decomposition of the equivariance error over every module call of a model.

    Write the network as modules :math:`x_{i+1} = f_i(x_i)`. Module i contributes the vector
    :math:`C_i = J_{rest} (J_i ξ(x_i) - ξ(x_{i+1}))` to :math:`L f` (Gruver et al., arXiv
    2210.02984, Eq. 6). The measures:

    - ``aligned``: :math:`⟨L f, C_i⟩ / \dim`, signed; the self contributions of all rows sum to LEE,
      exactly. One forward-mode, one forward and one backward pass.
    - ``target``: :math:`⟨e_k, C_i⟩`, signed; sums to the Lie derivative of output k.
    - ``norm``: :math:`‖C_i‖² / \dim`, the paper's own; not additive. Exact by forward mode (one
      tangent for each module call and group, which suits models with many outputs) or reverse mode
      (one backward pass for each output), whichever costs less; ``method`` says which.

    Layouts are inferred (see :mod:`captum_lie.layouts`); modules with an unknown boundary are
    folded into the nearest ancestor whose boundaries are known.

    Args:
        model: a module in evaluation mode that takes images and returns class scores.
        output_fn: applied to the output; softmax by default, None for none.
        layouts: overrides by module name: a layout for both sides, or ``(input, output)`` with None
            for what should be inferred. Those of the model itself are fixed: an image in, and an
            output that stays put.

    Example:
        >>> from captum_lie.examples import load_images, load_model
        >>> images, _ = load_images(2)
        >>> result = LayerwiseEquivarianceError(load_model("cnn")).attribute(images)
        >>> table = result.to_dataframe()
        >>> bool(abs(table["self_contribution"].sum() - result.total.mean()) < 1e-6)
        True
    """

    def __init__(
        self,
        model: nn.Module,
        output_fn: OutputFn | None = softmax,
        layouts: Overrides | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise InvalidTypeError(
                f"A layerwise decomposition needs a torch.nn.Module; got {type(model).__name__}."
            )
        self.model = model
        self.output_fn = output_fn
        self.layouts = dict(layouts or {})
        check_overrides(model, self.layouts)
        check_whole(self.layouts)

    @overload
    def attribute(  # type: ignore[overload-overlap]  # a name is a sequence of names, too
        self,
        inputs: Inputs,
        group: GroupLike = ...,
        measure: Measure = ...,
        target: TargetType = ...,
        additional_forward_args: object = ...,
        n_probes: int | None = ...,
        tolerance: float | None = ...,
        seed: int = ...,
        first_index: int = ...,
        internal_batch_size: int | None = ...,
        modules: Collection[str] | None = ...,
    ) -> LayerwiseResult: ...

    @overload
    def attribute(
        self,
        inputs: Inputs,
        group: Sequence[GroupLike],
        measure: Measure = ...,
        target: TargetType = ...,
        additional_forward_args: object = ...,
        n_probes: int | None = ...,
        tolerance: float | None = ...,
        seed: int = ...,
        first_index: int = ...,
        internal_batch_size: int | None = ...,
        modules: Collection[str] | None = ...,
    ) -> list[LayerwiseResult]: ...

    @log_usage(part_of_slo=True)
    def attribute(
        self,
        inputs: Inputs,
        group: GroupLike | Sequence[GroupLike] = DEFAULT_GROUP,
        measure: Measure = "aligned",
        target: TargetType = None,
        additional_forward_args: object = None,
        n_probes: int | None = None,
        tolerance: float | None = None,
        seed: int = 0,
        first_index: int = 0,
        internal_batch_size: int | None = None,
        modules: Collection[str] | None = None,
    ) -> LayerwiseResult | list[LayerwiseResult]:
        """Attribute the equivariance error of each example to the module calls.

        Args:
            inputs: images ``[N, C, H, W]``, or a tuple of them that are transformed together.
            group: a group or its name; a sequence gives a list of results. ``target`` and ``norm``
                serve all groups with the same backward passes; ``aligned`` needs one for each.
                ``target`` also checks several groups with one forward-mode tangent, a random
                combination of them, and with one for each only where that one disagrees.
            measure: ``"aligned"``, ``"norm"`` or ``"target"``.
            target: the output for ``measure="target"``, as anywhere in Captum. It selects from
                the result of ``output_fn``: by default a class's probability, not its score.
            additional_forward_args: passed on after the inputs.
            n_probes: for ``norm``: estimate with so many backward passes instead of exactly.
            tolerance: for ``norm``: probe until every leaf's standard error is below this, at most
                ``n_probes`` times.
            seed, first_index: determine each example's probes, independently of batching.
            internal_batch_size: at most so many examples at a time.
            modules: names of the modules to tell apart; all by default. Only their boundaries are
                paired. There is a row for each of their calls, after the model's own; its
                ``self_contribution`` is what it contributes beyond the chosen calls within it, so
                that the model's row holds what none of them accounts for, and the sum stays exact.

        Returns:
            A result, or for a sequence of groups a list of them.

        Raises:
            TypeError, ValueError: images, group, measure, layouts or model mode are not usable.
            AssertionError: bad target (by Captum).
        """
        probes = Probes(n_probes, tolerance, seed)
        question = Question(measure, probes, self.layouts, modules)
        question.check(self.model, target)
        xs = as_tuple(inputs)
        check_inputs(xs)
        check_internal_batch_size(internal_batch_size)
        check_eval_mode(self.model)
        single = is_single(group)
        groups = get_groups(group)
        parts: list[list[LayerwiseResult]] = []
        for chunk, args, chosen in batches(
            xs, additional_forward_args, target, internal_batch_size
        ):
            function = ModelFunction(self.model, self.output_fn, chosen, args)
            parts.append(decompose(function, chunk, groups, question, first_index=first_index))
            first_index += len(chunk[0])
        results = [LayerwiseResult.concatenate(part) for part in zip(*parts, strict=True)]
        return results[0] if single else results

    def evaluate(
        self,
        loader: Iterable[Any],
        groups: GroupLike | Sequence[GroupLike] = DEFAULT_GROUP,
        measure: Measure = "aligned",
        *,
        target: int | tuple[int, ...] | Literal["label"] | None = None,
        show_progress: bool = False,
        description: str = "layers",
        **options: Unpack[AttributionOptions],
    ) -> list[LayerwiseResult]:
        """Decompose the error over a data set.

        Args:
            loader: yields images ``[N, C, H, W]``, or tuples whose first member they are. Batches
                are moved to the model's device.
            groups: groups or their names; ``"all"`` for every one.
            measure: ``"aligned"``, ``"norm"`` or ``"target"``.
            target: for ``target``: one output for all images, or ``"label"`` for each image's
                own class, which the loader gives as the second member of its tuples.
            show_progress: show a progress bar, labelled ``description``.
            n_probes, tolerance, seed, internal_batch_size, modules: see :meth:`attribute`.

        Returns:
            A result for each group; its table gives means over the images and standard errors.

        Raises:
            TypeError, ValueError: as for :meth:`attribute`; no images, labels that are no classes,
                or a model whose calls differ from batch to batch.
        """
        is_label = isinstance(target, str) and target == "label"
        if not is_label and not isinstance(target, int | tuple | None):
            raise InvalidTypeError(
                "target must be one output for all images, or 'label' for each image's own from "
                f"the loader; got {type(target).__name__}."
            )
        resolved = get_groups(groups)
        parts: list[list[LayerwiseResult]] = []
        for first, images, batch in over_batches(
            self.model, loader, description, show_progress=show_progress
        ):
            chosen: Any = labels_of(batch).to(images.device) if is_label else target
            parts.append(
                self.attribute(images, resolved, measure, chosen, first_index=first, **options)
            )
        return [LayerwiseResult.concatenate(part) for part in zip(*parts, strict=True)]
