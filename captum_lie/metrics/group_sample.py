"""Group-sample error: equivariance under transformations of finite size, for every group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from captum_lie.core.groups import GroupLike, Groups, OneParameterGroup, get_groups
from captum_lie.core.resampling import Border, Interpolation
from captum_lie.errors import InvalidValueError
from captum_lie.metrics.finite_groups import (
    border_of,
    group_errors,
    interpolation_of,
    radius_of,
)
from captum_lie.metrics.settings import (
    Evaluation,
    EvaluationOptions,
    SampledEvaluation,
    SampledEvaluationOptions,
)
from captum_lie.metrics.streaming import Images, Model
from captum_lie.results.metrics import Array, MetricTable, summarise

if TYPE_CHECKING:
    from typing_extensions import Unpack

_UNIT = "mean square of the output"


def group_sample_error(
    model: Model,
    images: Images,
    groups: Groups = "all",
    *,
    radius: float | Mapping[str, float] | None = None,
    interpolation: Interpolation = "central",
    border: Border | None = None,
    **options: Unpack[SampledEvaluationOptions],
) -> MetricTable:
    """Mean square of ``f(x) − T_t⁻¹ f(T_t x)`` over t uniform in a neighbourhood of the identity.

    For small t it is t² times LEE, where the interpolation has one slope at a pixel. Bilinear
    interpolation has two (LEE takes that of the next pixel), so groups given by name are
    ``"central"`` here.

    Args:
        model: images ``[N, C, H, W]`` to scores ``[N, K]`` or maps ``[N, K, H', W']``; any
            callable.
        images: a tensor, or a loader of tensors or tuples whose first member they are.
        groups: groups or their names.
        radius: largest |t| in the unit of :func:`captum_lie.metrics.parameter_unit`, for all groups
            or by name. By default 2 px for translations, π/16 rad for rotation, 1/16 for the rest.
        interpolation, border: for groups given by name, as in :func:`captum_lie.get_groups`.
        output_fn: applied to the output; softmax over dimension 1 by default, None for none.
        output_layout: :data:`captum_lie.layouts.NCHW` or another layout with spatial axes for
            outputs that should move with the input; by default they should stay (``TRIVIAL``).
        n_samples: transformations per image and group; 10 by default.
        seed: with an image's position in the data it determines its transformations; 0 by default.
        batch_size, first_index, show_progress: as for :func:`eq_t`.

    Returns:
        One result per group, in mean square per output value.

    Raises:
        TypeError, ValueError: images, groups, model output or options are not usable.

    Source:
        Hutchinson et al., "LieTransformer" (2021); Gruver et al., arXiv 2210.02984, App. D.4. The
        latter's released code draws angles up to ``np.pi // 16``, which is 0; here it is π/16.

    Example:
        >>> import torch
        >>> table = group_sample_error(lambda x: x.mean((2, 3)), torch.rand(2, 3, 8, 8))
        >>> table["brightness"].value > 0
        True
    """
    how = SampledEvaluation(**options)
    sampling = how.sampling
    resolved = get_groups(groups, interpolation=interpolation, border=border)
    radii = {g.name: radius_of(radius, g) for g in resolved}

    def draw(group: OneParameterGroup, index: Array) -> Array:
        draws = sampling.uniform(f"group_sample:{group.name}", index, 1)
        return draws[..., 0] * radii[group.name]

    measured = group_errors(model, images, resolved, draw, how)
    return MetricTable(
        [
            summarise(
                "group_sample",
                m.errors.mean(1),
                variant=m.group.name,
                unit=_UNIT,
                border=border_of(m.group),
                index=m.index,
                parameters={
                    "group": m.group.name,
                    "interpolation": interpolation_of(m.group),
                    "radius": radii[m.group.name],
                    "radius_unit": m.unit,
                    "output_layout": str(how.layout),
                    "n_samples": how.n_samples,
                    "seed": how.seed,
                },
                transformations={"t": m.t},
            )
            for m in measured
        ]
    )


def group_error_curve(
    model: Model,
    images: Images,
    group: GroupLike = "rotation",
    *,
    t: Sequence[float] | None = None,
    interpolation: Interpolation = "central",
    border: Border | None = None,
    **options: Unpack[EvaluationOptions],
) -> MetricTable:
    """Group-sample error as a function of the size of the transformation.

    While the first-order picture holds, ``error_over_t2`` (a column of the table) is constant:
    it is LEE, in the group's own parameter. Where it starts to fall or rise, LEE no longer says
    what the model does.

    Args:
        t: positive sizes in the unit of :func:`captum_lie.metrics.parameter_unit`; each stands for
            both signs. By default ten, evenly spaced in the logarithm, from 1/100 to 4 times the
            default radius of :func:`group_sample_error`.
        model, images, group, and the rest: as for :func:`group_sample_error`.

    Returns:
        One result per t, in the order given, with parameters ``t`` (in ``t_unit``) and
        ``error_over_t2``. Nothing is random.

    Raises:
        TypeError, ValueError: as :func:`group_sample_error`; a t that is not positive.

    Example:
        >>> import torch
        >>> x = torch.rand(2, 3, 8, 8, dtype=torch.float64)
        >>> curve = group_error_curve(
        ...     lambda x: x.mean((2, 3)), x, "brightness", output_fn=None
        ... )
        >>> bool(curve.to_dataframe()["error_over_t2"].round(6).nunique() == 1)
        True
    """
    how = Evaluation(**options)
    (resolved,) = get_groups([group], interpolation=interpolation, border=border)
    default = np.geomspace(0.01, 4, 10) * radius_of(None, resolved)
    sizes = default if t is None else np.array([float(value) for value in t])
    if not len(sizes) or not (np.isfinite(sizes) & (sizes > 0)).all():
        raise InvalidValueError(
            f"t must be positive sizes; got {sizes.tolist()}. Each one stands for both signs."
        )
    signed = np.stack([sizes, -sizes], 1).reshape(-1)

    def both_signs(_group: OneParameterGroup, index: Array) -> Array:
        return np.tile(signed, (len(index), 1))

    (m,) = group_errors(model, images, [resolved], both_signs, how)
    errors = m.errors.reshape(len(m.errors), -1, 2).mean(2)
    return MetricTable(
        [
            summarise(
                "group_error_curve",
                errors[:, i],
                variant=f"{resolved.name} {size:.4g} {m.unit}",
                unit=_UNIT,
                border=border_of(resolved),
                index=m.index,
                parameters={
                    "group": resolved.name,
                    "interpolation": interpolation_of(resolved),
                    "t": float(size),
                    "t_unit": m.unit,
                    "error_over_t2": float(errors[:, i].mean() / (size * m.scale) ** 2),
                    "output_layout": str(how.layout),
                },
            )
            for i, size in enumerate(sizes)
        ]
    )
