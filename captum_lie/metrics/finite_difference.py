"""LEE of black boxes: central differences with Richardson extrapolation and an error bar.

The rate of change of ``φ(t) = f(x + t ξ(x))`` at 0 is the Lie derivative, whatever the
interpolation rule behind the generator ξ. (Moving the image itself, ``f(T_t x)``, has the same
derivative only where the rule is smooth: bilinear interpolation is not.)

With steps h, h/ρ, h/ρ², ... the odd part of φ gives the derivative and the even part an independent
look at what spoils it: kinks of the model and rounding show in both alike, while a smooth model's
curvature cancels under extrapolation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from captum_lie.core.groups import Groups, OneParameterGroup, SpatialGroup, get_groups
from captum_lie.core.resampling import Border, Interpolation
from captum_lie.core.validation import one_of
from captum_lie.errors import InvalidValueError
from captum_lie.metrics.finite_groups import border_of, interpolation_of
from captum_lie.metrics.settings import Evaluation, EvaluationOptions
from captum_lie.metrics.streaming import (
    Block,
    Images,
    Model,
    apply_output_fn,
    blocks,
    call,
    respond,
)
from captum_lie.results.metrics import Array, MetricTable, summarise

if TYPE_CHECKING:
    from typing_extensions import Unpack

Curve = Literal["generator", "act"]

_STEPS = 6
_SAFETY = 2.0


class DifferencesOptions(EvaluationOptions, total=False):
    """Keywords of :class:`Differences`."""

    path: Curve
    precision: float | None


@dataclass(frozen=True, kw_only=True)
class Differences(Evaluation):
    """Which differences are taken.

    Attributes:
        path: along which curve through the image.
        precision: relative rounding error of the model's output; None for its data type's.
    """

    path: Curve = "generator"
    precision: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("path", self.path, ("generator", "act"))
        if self.precision is not None and not 0 < self.precision < 1:
            raise InvalidValueError(f"precision must lie between 0 and 1; got {self.precision}.")


def finite_difference_lee(
    model: Model,
    images: Images,
    groups: Groups = "all",
    *,
    interpolation: Interpolation = "bilinear",
    border: Border | None = None,
    **options: Unpack[DifferencesOptions],
) -> MetricTable:
    """LEE of a model that offers no derivatives, with a bound on the error of the differences.

    Costs 12 evaluations per image and group, and one per image. Nothing is random.

    Args:
        model: images ``[N, C, H, W]`` to scores ``[N, K]`` or maps ``[N, K, H', W']``; any
            callable.
        images: a tensor, or a loader of tensors or tuples whose first member they are.
        groups: groups or their names.
        interpolation, border: for groups given by name, as in :func:`captum_lie.get_groups`.
        path: ``"generator"`` (the default) differentiates ``f(x + t ξ(x))``, which is the LEE of
            any rule; ``"act"`` differentiates ``f(T_t x)`` through the group's own finite action,
            which must be smooth: ``"central"`` or ``"fourier"``.
        output_fn: applied to the output; softmax over dimension 1 by default, None for none.
        output_layout: :data:`captum_lie.layouts.NCHW` or another layout with spatial axes for
            outputs that should move with the input; ``TRIVIAL`` by default.
        precision: relative rounding error of the model's output, from which the steps follow; by
            default that of its data type. Pass a larger one for a quantised model.
        batch_size, first_index, show_progress: as for :func:`eq_t`.

    Returns:
        One result per group, in the units of :class:`captum_lie.LocalEquivarianceError`.
        ``.numerical_error`` bounds the error of each image's LEE, ``.error_bar`` that of the mean;
        they are estimates, wide where the model has kinks (ReLU, max pooling) near the image.
        ``.stderr`` is about the sample of images, as everywhere.

    Raises:
        TypeError, ValueError: images, groups, model output or options are not usable;
            ``path="act"`` with a rule that has kinks.

    Source:
        LEE: Gruver et al., arXiv 2210.02984, Eq. 4. Choice among steps: the principle of Lepski
        (1991), the least error estimate that no finer step contradicts.

    Example:
        >>> from captum_lie import LocalEquivarianceError
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 5)).eval()
        >>> x = torch.rand(2, 3, 4, 4)
        >>> result = finite_difference_lee(model, x, "rotation")[0]
        >>> exact = LocalEquivarianceError(model).score(x, "rotation").mean().item()
        >>> abs(result.value - exact) <= result.error_bar
        True
    """
    how = Differences(**options)
    resolved = get_groups(groups, interpolation=interpolation, border=border)
    if how.path == "act":
        _check_smooth(resolved)
    values: list[list[Array]] = [[] for _ in resolved]
    bars: list[list[Array]] = [[] for _ in resolved]
    index: list[Array] = []
    for block in blocks(model, images, "finite-difference LEE", how):
        raw = call(model, block.images)
        eps = how.precision or max(_eps(raw), _eps(block.images))
        reference = apply_output_fn(how.output_fn, raw)
        index.append(block.index)
        for i, group in enumerate(resolved):
            steps, responses = _responses(model, block, group, eps, how)
            still = how.layout.generator(group, reference) if how.layout.moves else None
            lee, bar = _estimate(steps, responses, reference, eps, still)
            values[i].append(lee.numpy())
            bars[i].append(bar.numpy())
    return MetricTable(
        [
            summarise(
                "lee_fd",
                np.concatenate(values[i]),
                variant=group.name,
                unit="mean square of the output per unit of t²",
                border=border_of(group),
                index=np.concatenate(index),
                parameters={
                    "group": group.name,
                    "interpolation": interpolation_of(group),
                    "path": how.path,
                    "output_layout": str(how.layout),
                },
                numerical_error=np.concatenate(bars[i]),
            )
            for i, group in enumerate(resolved)
        ]
    )


def _responses(
    model: Model, block: Block, group: OneParameterGroup, eps: float, how: Differences
) -> tuple[Tensor, Tensor]:
    """Steps h ``[S, n]``, coarse to fine, and outputs at ±h: ``[S, 2, n, ...]``."""
    tangent = group.generator(block.images)
    scale = _rms(block.images) / _rms(tangent)
    scale = torch.where(scale.isfinite() & (scale > 0), scale, 1.0)
    # As shares of the image: from where a model bends to where rounding takes over.
    relative = torch.from_numpy(np.geomspace(eps ** (1 / 6), eps ** (3 / 5), _STEPS))
    steps = (relative[:, None] * scale).to(block.images.dtype)  # as the model's input sees them
    signed = torch.stack([steps, -steps], 1).flatten(0, 1).to(block.images.device)

    def move(x: Tensor, example: Array, sample: Array) -> Tensor:
        row = torch.from_numpy(example).to(x.device)
        t = signed[torch.from_numpy(sample).to(x.device), row]
        return group.act(x, t) if how.path == "act" else x + t[:, None, None, None] * tangent[row]

    outputs = respond(model, block.images, 2 * _STEPS, move, how.batch_size)
    responses = apply_output_fn(how.output_fn, outputs.flatten(0, 1))
    return steps.double(), responses.unflatten(0, (_STEPS, 2, len(block.images)))


def _estimate(
    steps: Tensor, responses: Tensor, reference: Tensor, eps: float, still: Tensor | None
) -> tuple[Tensor, Tensor]:
    """LEE of each example and a bound on its error, ``[n]`` each."""
    h = steps[..., None]
    forward, backward = responses.flatten(3).unbind(1)
    centre = reference.flatten(1)
    odd = (forward - backward) / (2 * h)
    even = (forward + backward - 2 * centre) / (2 * h)
    ratio = h[:-1] / h[1:]
    derivative = (ratio**2 * odd[1:] - odd[:-1]) / (ratio**2 - 1)
    leftover = (ratio * even[1:] - even[:-1]) / (ratio - 1)
    truncation = torch.cat([derivative[:1] - odd[1:2], derivative[1:] - derivative[:-1]]).norm(
        dim=-1
    )
    rounding = eps * centre.norm(dim=-1) / steps[1:]
    error = truncation + leftover.norm(dim=-1) + rounding
    contradiction = [
        torch.stack([(d - finer).norm(dim=-1) - e for finer, e in zip(rest, errors, strict=True)])
        .max(0)
        .values
        for d, rest, errors in (
            (derivative[k], derivative[k + 1 :], error[k + 1 :]) for k in range(len(error) - 1)
        )
    ]
    bound = torch.cat([torch.maximum(error[:-1], torch.stack(contradiction)), error[-1:]])
    best = bound.argmin(0)
    row = torch.arange(len(best))
    chosen, delta = derivative[best, row], _SAFETY * bound[best, row]
    if still is not None:
        chosen = chosen - still.flatten(1)
    size, dim = chosen.norm(dim=-1), chosen.shape[-1]
    return size.square() / dim, (2 * size * delta + delta.square()) / dim


def _rms(x: Tensor) -> Tensor:
    return x.flatten(1).double().square().mean(1).sqrt().cpu()


def _eps(x: Tensor) -> float:
    return float(torch.finfo(x.dtype).eps)


def _check_smooth(groups: list[OneParameterGroup]) -> None:
    for group in groups:
        if isinstance(group, SpatialGroup) and group.rule[0] == "bilinear":
            raise InvalidValueError(
                f"path='act' cannot differentiate {group.name} under interpolation='bilinear', "
                "which has a kink at every pixel, t = 0 included. Use path='generator', or "
                "interpolation='central' or 'fourier'."
            )
