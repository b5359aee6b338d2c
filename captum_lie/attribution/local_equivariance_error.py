"""``LocalEquivarianceError``: LEE of a model, its pixels, its Gram matrix, over a data set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Sized
from typing import Any, Literal

import pandas as pd
import torch
from torch import Tensor

from captum_lie._autodiff import pullback
from captum_lie._captum import (
    ForwardFunc,
    GradientAttribution,
    Inputs,
    TargetType,
    as_tuple,
    batches,
    like_inputs,
    log_usage,
    progress,
    sum_per_example,
)
from captum_lie._data import images_of, to_model
from captum_lie._validation import check_inputs, check_internal_batch_size, one_of
from captum_lie.derivative import (
    OutputFn,
    OutputLayout,
    bind,
    derivatives_along,
    lie_derivatives,
)
from captum_lie.errors import InvalidValueError
from captum_lie.gram import PrincipalDirections, gram_of, principal_directions
from captum_lie.groups import (
    DEFAULT_GROUP,
    GroupLike,
    OneParameterGroup,
    basis_fields,
    get_group,
    get_groups,
)
from captum_lie.resampling import Border, Interpolation
from captum_lie.scrambling import phase_scrambled

Groups = GroupLike | Sequence[GroupLike]


def softmax(output: Tensor) -> Tensor:
    """Class probabilities from scores ``[N, K, ...]``, K at least 2."""
    if output.ndim < 2 or output.shape[1] < 2:
        raise InvalidValueError(
            "LEE is taken on softmax probabilities over at least two classes; the output has "
            f"shape {tuple(output.shape)}. For other outputs pass output_fn=torch.sigmoid, or "
            "output_fn=None for the plain output."
        )
    return output.softmax(1)


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
        output_layout: ``"trivial"`` for class scores; ``"image"`` for dense outputs
            ``[N, K, H', W']`` that should move with the input (``score`` and ``gram`` only).

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
        norm: Literal["l2", "l1"] = "l2",
        output_layout: OutputLayout = "trivial",
    ) -> None:
        super().__init__(forward_func)
        one_of("norm", norm, ("l2", "l1"))
        one_of("output_layout", output_layout, ("trivial", "image"))
        self.output_fn = output_fn
        self.norm = norm
        self.output_layout: OutputLayout = output_layout

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
        if self.output_layout != "trivial":
            raise InvalidValueError(
                "Pixel attributions sum to LEE only where the output has the trivial layout; "
                f"got output_layout={self.output_layout!r}. Use score() for dense outputs."
            )
        xs = as_tuple(inputs)
        resolved = get_group(group)
        check_inputs(xs)
        check_internal_batch_size(internal_batch_size)
        parts = []
        for x, args, chosen in batches(xs, additional_forward_args, target, internal_batch_size):
            parts.append(self._attribute(x, chosen, args, resolved))
        attributions = tuple(torch.cat(part) for part in zip(*parts, strict=True))
        result = like_inputs(inputs, attributions)
        if not return_convergence_delta:
            return result
        delta = self.compute_convergence_delta(
            result, inputs, target, additional_forward_args, resolved, internal_batch_size
        )
        return result, delta

    def _attribute(
        self, xs: tuple[Tensor, ...], target: TargetType, args: object, group: OneParameterGroup
    ) -> list[Tensor]:
        (derivative,) = lie_derivatives(
            self.forward_func, xs, [group], output_fn=self.output_fn, target=target, args=args
        )
        derivative = derivative[0]
        cotangent = derivative.sign() if self.norm == "l1" else derivative
        cotangent = cotangent / derivative[0].numel()
        function = bind(self.forward_func, self.output_fn, target, args)
        gradients = pullback(function, xs, cotangent)
        with torch.no_grad():
            return [g * group.generator(x) for g, x in zip(gradients, xs, strict=True)]

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
        scores = [
            self._reduce(derivative)
            for derivative in lie_derivatives(
                self.forward_func,
                as_tuple(inputs),
                get_groups(groups),
                output_fn=self.output_fn,
                target=target,
                args=additional_forward_args,
                output_layout=self.output_layout,
                internal_batch_size=internal_batch_size,
            )
        ]
        return torch.cat(scores, dim=1).T

    def control_score(
        self,
        inputs: Inputs,
        groups: Groups = "all",
        *,
        n_scrambles: int = 8,
        seed: int = 0,
        first_index: int = 0,
        additional_forward_args: object = None,
        internal_batch_size: int | None = None,
    ) -> Tensor:
        """LEE along phase-scrambled tangents, mean over scrambles, ``[N, len(groups)]``.

        The tangents have the norm and spectrum of each group's own (see
        :func:`captum_lie.scrambling.phase_scrambled`). ``score / control_score`` is the relative
        LEE: 1 where the group's direction is nothing special to the model, below 1 where it has
        learned invariance.

        Args:
            n_scrambles: scrambles per example and group.
            seed, first_index: determine each example's phases, independently of batching.
        """
        if self.output_layout != "trivial":
            raise InvalidValueError("Relative LEE is defined for the trivial output layout only.")
        if n_scrambles < 1:
            raise InvalidValueError(f"n_scrambles must be at least 1; got {n_scrambles}.")
        resolved = get_groups(groups)
        xs = as_tuple(inputs)
        check_inputs(xs)
        if internal_batch_size is None:  # no more memory than score() takes for the same groups
            internal_batch_size = len(xs[0]) * len(resolved)

        def scrambled(chunk: tuple[Tensor, ...], first: int) -> tuple[Tensor, ...]:
            return tuple(
                torch.cat(
                    [
                        phase_scrambled(
                            g.generator(x), n_scrambles, seed=seed, first_index=first_index + first
                        )
                        for g in resolved
                    ]
                )
                for x in chunk
            )

        scores = [
            self._reduce(derivative).unflatten(0, (len(resolved), n_scrambles)).mean(1)
            for _, _, derivative in derivatives_along(
                self.forward_func,
                xs,
                scrambled,
                len(resolved) * n_scrambles,
                output_fn=self.output_fn,
                args=additional_forward_args,
                internal_batch_size=internal_batch_size,
            )
        ]
        return torch.cat(scores, dim=1).T

    def evaluate(
        self,
        loader: Iterable[Any],
        groups: Groups = "all",
        *,
        show_progress: bool = False,
        description: str = "LEE",
        n_scrambles: int = 8,
        seed: int = 0,
        internal_batch_size: int | None = None,
    ) -> pd.DataFrame:
        """LEE over a data set.

        Args:
            loader: yields images ``[N, C, H, W]``, or tuples whose first member they are. Batches
                are moved to the model's device.
            groups: groups or their names; ``"all"`` by default.
            show_progress: show a progress bar, labelled ``description``.
            n_scrambles: control tangents per image and group for ``relative_lee``; 0 leaves it out.
            seed: of the control tangents.
            internal_batch_size: at most so many examples × tangents at a time.

        Returns:
            A row per group: ``group``, ``lee`` (mean over images), ``stderr`` (of that mean),
            ``relative_lee`` (LEE over that of scrambled tangents, a ratio of means) and ``n``.

        Raises:
            ValueError: no images.
        """
        resolved = get_groups(groups)
        scores: list[Tensor] = []
        controls: list[Tensor] = []
        seen = 0
        total = len(loader) if isinstance(loader, Sized) else None
        for batch in progress(loader, description, total, show_progress):
            images = to_model(self.forward_func, images_of(batch))
            scores.append(
                self.score(images, resolved, internal_batch_size=internal_batch_size).cpu()
            )
            if n_scrambles:
                control = self.control_score(
                    images,
                    resolved,
                    n_scrambles=n_scrambles,
                    seed=seed,
                    first_index=seen,
                    internal_batch_size=internal_batch_size,
                )
                controls.append(control.cpu())
            seen += len(images)
        if not seen:
            raise InvalidValueError("The loader yielded no images: there is nothing to evaluate.")
        lee = torch.cat(scores).double()
        control = torch.cat(controls).double().mean(0) if controls else lee.new_full((), torch.nan)
        return pd.DataFrame(
            {
                "group": [g.name for g in resolved],
                "lee": lee.mean(0).numpy(),
                "stderr": (lee.std(0) / seen**0.5 if seen > 1 else lee[0] * torch.nan).numpy(),
                "relative_lee": (lee.mean(0) / control).numpy(),
                "n": seen,
            }
        )

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

        ``c @ Q @ c`` is the LEE of the direction c (see :data:`captum_lie.groups.BASIS`).

        Raises:
            ValueError: the class was made with ``norm="l1"``, which has no Gram matrix.
        """
        if self.norm != "l2":
            raise InvalidValueError(
                "The Gram matrix belongs to norm='l2' (Eq. 4); this one has 'l1'."
            )
        total = None
        xs = as_tuple(inputs)
        for derivative in lie_derivatives(
            self.forward_func,
            xs,
            basis_fields(interpolation=interpolation, border=border),
            output_fn=self.output_fn,
            args=additional_forward_args,
            output_layout=self.output_layout,
            internal_batch_size=internal_batch_size,
        ):
            part = gram_of(derivative) * derivative.shape[1]
            total = part if total is None else total + part
        assert total is not None
        return total / len(xs[0])

    def principal_directions(self, inputs: Inputs, **options: Any) -> PrincipalDirections:
        """Eigenvalues of :meth:`gram` and their directions, the worst affine motion first.

        Options are those of :meth:`gram`.
        """
        return principal_directions(self.gram(inputs, **options))

    def _reduce(self, derivative: Tensor) -> Tensor:
        """Norm of derivatives ``[G, N, ...]`` per output value: ``[G, N]``."""
        size = derivative.abs() if self.norm == "l1" else derivative.square()
        return size.reshape(*derivative.shape[:2], -1).mean(2)
