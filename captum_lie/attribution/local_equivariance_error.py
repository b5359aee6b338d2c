"""``LocalEquivarianceError``: LEE of a model, its pixels, its Gram matrix, over a data set."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypedDict

import pandas as pd
import torch
from torch import Tensor

from captum_lie.attribution.collection import (
    Collection,
    CollectionOptions,
    collect,
    fields_beside,
)
from captum_lie.attribution.control import control
from captum_lie.attribution.norms import NORMS, NormName
from captum_lie.attribution.pixels import lee_of_pixels
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
from captum_lie.core.derivative import ModelFunction, OutputFn, lie_derivatives
from captum_lie.core.gram import PrincipalDirections, grams_of, principal_directions
from captum_lie.core.groups import (
    DEFAULT_GROUP,
    GroupLike,
    Groups,
    basis_fields,
    get_group,
    get_groups,
)
from captum_lie.core.outputs import softmax
from captum_lie.core.probes import Probes
from captum_lie.core.resampling import Border, Interpolation
from captum_lie.core.validation import one_of
from captum_lie.errors import InvalidValueError
from captum_lie.layouts import TRIVIAL, OutputLayout, as_output_layout
from captum_lie.results import LeeResult

if TYPE_CHECKING:
    from typing_extensions import Unpack


class GramOptions(TypedDict, total=False):
    """Keywords of :meth:`LocalEquivarianceError.gram`."""

    additional_forward_args: object
    interpolation: Interpolation
    border: Border | None
    internal_batch_size: int | None


class LocalEquivarianceError(GradientAttribution):
    """Local equivariance error (LEE) and its attribution to the pixels.

    ``LEE(f) = E_x ‖L f(x)‖² / dim`` (Gruver et al., arXiv 2210.02984, Eq. 4), on softmax
    probabilities. The attribution ``a = (Jᵀ J ξ(x)) ⊙ ξ(x) / dim`` sums to the LEE of its example
    exactly: one forward-mode and one reverse-mode derivative.

    Args:
        forward_func: the model, or any callable that returns one tensor ``[N, K, ...]``.
        output_fn: applied to the output; softmax over dimension 1 by default, None for none.
        norm: ``"l2"`` is Eq. 4, the mean square; ``"l1"`` the mean absolute value, which the
            paper's released end-to-end script reports.
        output_layout: :data:`captum_lie.layouts.TRIVIAL` for class scores;
            :data:`~captum_lie.layouts.NCHW`, or another layout with spatial axes, for dense outputs
            that should move with the input (``score`` and ``gram`` only).

    Example:
        >>> from captum_lie import LocalEquivarianceError
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 5))
        >>> lee = LocalEquivarianceError(model)
        >>> x = torch.rand(2, 3, 4, 4)
        >>> lee.score(x, ["rotation", "scale"]).shape
        torch.Size([2, 2])
        >>> total = lee.attribute(x, group="rotation").sum((1, 2, 3))
        >>> torch.allclose(total, lee.score(x, "rotation")[:, 0])
        True
    """

    def __init__(
        self,
        forward_func: ForwardFunc,
        output_fn: OutputFn | None = softmax,
        norm: NormName = "l2",
        output_layout: OutputLayout = TRIVIAL,
    ) -> None:
        super().__init__(forward_func)
        one_of("norm", norm, tuple(NORMS))
        self.output_fn = output_fn
        self.norm = norm
        self.output_layout = as_output_layout(output_layout)

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
        """Attribute each example's LEE to its pixels.

        Args:
            inputs: images ``[N, C, H, W]``, or a tuple of them that are transformed together.
            target: by default the LEE of all outputs; with a target, that of this output alone
                (after ``output_fn``).
            additional_forward_args: passed on after the inputs, not differentiated.
            group: a group or its name.
            internal_batch_size: at most so many examples at a time.
            return_convergence_delta: also return the difference between the attributions' sum and
                the LEE by forward mode alone.

        Returns:
            Attributions shaped like the inputs, signed; with ``return_convergence_delta`` also
            ``delta [N]``.

        Raises:
            TypeError, ValueError: images, group, layout or model mode are not usable.
            AssertionError: bad target (by Captum).
        """
        if self.output_layout.moves:
            raise InvalidValueError(
                "Pixel attributions sum to LEE only where the output has the trivial layout; "
                f"got output_layout={self.output_layout}. Use score() for dense outputs."
            )
        resolved = get_group(group)
        attributions = lee_of_pixels(
            self._function(target, additional_forward_args),
            as_tuple(inputs),
            resolved,
            signs=self.norm == "l1",
            internal_batch_size=internal_batch_size,
        )
        result = like_inputs(inputs, attributions)
        if not return_convergence_delta:
            return result
        delta = self.compute_convergence_delta(
            result, inputs, target, additional_forward_args, resolved, internal_batch_size
        )
        return result, delta

    def has_convergence_delta(self) -> bool:
        """True: the attributions' sum is checked against forward mode."""
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
        """Sum of the attributions minus the LEE by forward mode, ``[N]``; zero up to rounding."""
        score = self.score(
            inputs,
            group,
            target=target,
            additional_forward_args=additional_forward_args,
            internal_batch_size=internal_batch_size,
        )
        return sum_per_example(as_tuple(attributions)) - score[:, 0]

    def score(
        self,
        inputs: Inputs,
        groups: Groups = "all",
        *,
        target: TargetType = None,
        additional_forward_args: object = None,
        internal_batch_size: int | None = None,
    ) -> Tensor:
        """LEE of each example under each group, ``[N, len(groups)]``.

        All spatial groups together cost at most six tangents on one evaluation of the model.
        """
        chunks = lie_derivatives(
            self._function(target, additional_forward_args),
            as_tuple(inputs),
            get_groups(groups),
            internal_batch_size=internal_batch_size,
        )
        return torch.cat([NORMS[self.norm](derivative) for derivative in chunks], dim=1).T

    def control_score(
        self,
        inputs: Inputs,
        groups: Groups = "all",
        *,
        n_probes: int = 8,
        seed: int = 0,
        first_index: int = 0,
        additional_forward_args: object = None,
        internal_batch_size: int | None = None,
    ) -> Tensor:
        """LEE along tangents of scrambled phase, mean over all phases, ``[N, len(groups)]``.

        The tangents have the norm and spectrum of each group's own; the mean has a closed form (see
        :mod:`captum_lie.core.spectral_control`), exact for up to 32 outputs. ``score /
        control_score`` is the relative LEE: 1 where the group's direction is nothing special to the
        model, below 1 where it has learned invariance. All groups share the backward passes.

        Args:
            n_probes: backward passes for more than 32 outputs: half of them for the most probable
                ones, half along random signs of the others.
            seed, first_index: determine each example's signs, independently of batching.

        Raises:
            ValueError: fewer than 4 probes, or an output layout that moves with the input.
        """
        return control(
            self._function(args=additional_forward_args),
            as_tuple(inputs),
            get_groups(groups),
            reduce=NORMS[self.norm],
            probes=Probes(n_probes, seed=seed),
            first_index=first_index,
            internal_batch_size=internal_batch_size,
        ).mean

    def evaluate(
        self, loader: Iterable[Any], groups: Groups = "all", **options: Unpack[CollectionOptions]
    ) -> pd.DataFrame:
        """LEE over a data set.

        Args:
            loader: yields images ``[N, C, H, W]``, or tuples whose first member they are. Batches
                are moved to the model's device.
            groups: groups or their names; ``"all"`` by default.
            relative: also measure the control, for ``relative_lee``; True by default.
            n_probes, seed: of the control, see :meth:`control_score`; 8 and 0 by default.
            first_index: position of the first image, for a part of a larger set.
            internal_batch_size: at most so many examples × tangents at a time; by default as many
                as run fast and fit the memory.
            show_progress: show a progress bar, labelled ``description``.

        Returns:
            A row per group: ``group``, ``lee`` (mean over images), ``stderr`` (of that mean),
            ``relative_lee`` (LEE over its control, a ratio of means), ``relative_stderr`` and
            ``n``. The relative columns are NaN without a control and for dense outputs.

        Raises:
            ValueError: no images.
        """
        if self.output_layout.moves:
            options["relative"] = False
        return self.collect(loader, groups, **options).to_dataframe()

    def collect(
        self,
        loader: Iterable[Any],
        groups: Groups = "all",
        *,
        gram: bool = False,
        **options: Unpack[CollectionOptions],
    ) -> LeeResult:
        """All that :meth:`evaluate` sums up, image by image, from one pass over the data.

        Args:
            gram: also the Gram matrix, under the rule of the first spatial group.
            loader, groups, and the rest: as for :meth:`evaluate`.

        Returns:
            LEE and control of each image and group, and the Gram matrix.

        Raises:
            ValueError: no images, or a Gram matrix of ``norm="l1"``.
        """
        resolved = get_groups(groups)
        if gram:
            self._check_gram()
        fields = fields_beside(resolved) if gram else []
        how = Collection(**options)
        return collect(self._function(), loader, resolved, fields, reduce=NORMS[self.norm], how=how)

    def gram(
        self,
        inputs: Inputs,
        *,
        additional_forward_args: object = None,
        interpolation: Interpolation = "bilinear",
        border: Border | None = None,
        internal_batch_size: int | None = None,
    ) -> Tensor:
        """Gram matrix ``Q_ab = E⟨L_a f, L_b f⟩ / dim`` over the six fields of aff(2), ``[6, 6]``.

        ``c @ Q @ c`` is the LEE of the direction c (see :data:`captum_lie.core.groups.BASIS`).

        Raises:
            ValueError: the class was made with ``norm="l1"``, which has no Gram matrix.
        """
        self._check_gram()
        chunks = lie_derivatives(
            self._function(args=additional_forward_args),
            as_tuple(inputs),
            basis_fields(interpolation=interpolation, border=border),
            internal_batch_size=internal_batch_size,
        )
        return torch.cat([grams_of(derivative) for derivative in chunks]).mean(0)

    def principal_directions(
        self, inputs: Inputs, **options: Unpack[GramOptions]
    ) -> PrincipalDirections:
        """Eigenvalues of :meth:`gram` and their directions, the worst affine motion first."""
        return principal_directions(self.gram(inputs, **options))

    def _function(self, target: TargetType = None, args: object = None) -> ModelFunction:
        return ModelFunction(self.forward_func, self.output_fn, target, args, self.output_layout)

    def _check_gram(self) -> None:
        if self.norm != "l2":
            raise InvalidValueError(
                "The Gram matrix belongs to norm='l2' (Eq. 4); this one has 'l1'."
            )
