"""EQ-T, fractional EQ-T and EQ-R alike: move images, compare outputs where that can be done."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from captum_lie.errors import InvalidValueError
from captum_lie.layouts import Layout
from captum_lie.metrics.motions import Motion, Parameters, Size
from captum_lie.metrics.settings import SampledEvaluation, SampledEvaluationOptions
from captum_lie.metrics.streaming import (
    Images,
    Model,
    apply_output_fn,
    evaluated,
    respond,
    squared_change,
)
from captum_lie.results.metrics import Array, MetricResult, summarise


class ComparisonOptions(SampledEvaluationOptions, total=False):
    """Keywords of :class:`Comparison`."""

    margin: int
    data_range: float


@dataclass(frozen=True, kw_only=True)
class Comparison(SampledEvaluation):
    """How outputs are compared.

    Attributes:
        margin: output pixels beside the border that do not count, for outputs that move.
        data_range: largest minus smallest possible output, for the PSNR.
    """

    margin: int = 0
    data_range: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data_range <= 0:
            raise InvalidValueError(f"data_range must be positive; got {self.data_range}.")
        if self.margin < 0:
            raise InvalidValueError(f"margin must not be negative; got {self.margin} pixels.")


def motion_error(
    name: str, motion: Motion, model: Model, images: Images, how: Comparison
) -> MetricResult:
    """Mean square of ``f(T x) − f(x)``, or of ``f(T x) − T f(x)`` where outputs move.

    Args:
        name: of the metric; the draws depend on it.
    """
    sampling = how.sampling
    errors: list[Tensor] = []
    index: list[Array] = []
    planned: list[Parameters] = []
    for block, reference in evaluated(model, images, name, how):
        size = _size(block.images)
        grids = [size]
        if how.layout.moves:
            reference = _image(how.layout, reference)
            grids.append(_size(reference))
        parameters = motion.plan(sampling.uniform(name, block.index, motion.n_draws), grids)

        def move(
            x: Tensor,
            example: Array,
            sample: Array,
            parameters: Parameters = parameters,
            size: Size = size,
        ) -> Tensor:
            chosen = {k: v[example, sample] for k, v in parameters.items()}
            return motion.move(chosen, size).act(x)[0]

        if not how.layout.moves:
            error = squared_change(
                model, block, move, how.n_samples, evaluation=how, reference=reference
            ).mean(1)
        else:
            moved = respond(model, block.images, how.n_samples, move, how.batch_size)
            error = _dense_error(motion, moved, reference, parameters, size, how)
        errors.append(error)
        index.append(block.index)
        planned.append(parameters)
    return summarise(
        name,
        torch.cat(errors).numpy(),
        unit="mean square of the output",
        border=motion.border,
        index=np.concatenate(index),
        parameters={
            **motion.settings(),
            "output_layout": str(how.layout),
            "margin": how.margin,
            "data_range": how.data_range,
            "n_samples": how.n_samples,
            "seed": how.seed,
        },
        transformations={k: np.concatenate([p[k] for p in planned]) for k in planned[0]},
    )


def _dense_error(
    motion: Motion,
    moved: Tensor,
    reference: Tensor,
    parameters: Parameters,
    size: Size,
    how: Comparison,
) -> Tensor:
    """Mean square of ``f(T x) − T f(x)`` over all valid pixels of each image, ``[n]``."""
    height, width = _size(reference)
    margin = how.margin
    interior = torch.zeros(height, width, dtype=torch.bool)
    interior[margin : height - margin, margin : width - margin] = True
    squares = torch.zeros(len(reference), dtype=torch.float64)
    valid = torch.zeros_like(squares)
    for sample, raw in enumerate(moved):
        move = motion.move({k: v[:, sample] for k, v in parameters.items()}, size)
        expected, inside = move.act(reference)
        output, known = move.match(_image(how.layout, apply_output_fn(how.output_fn, raw)))
        mask = inside & known & interior
        squares += ((output - expected).square().mean(1, keepdim=True) * mask).flatten(1).sum(1)
        valid += mask.flatten(1).sum(1)
    if not valid.all():
        family = type(motion).__name__
        raise InvalidValueError(
            f"No valid pixel is left of outputs {height} × {width} after a {family}. "
            "Use border='circular', a smaller margin or kernel, smaller motions, or larger images."
        )
    return squares / valid


def _size(x: Tensor) -> Size:
    return x.shape[-2], x.shape[-1]


def _image(layout: Layout, output: Tensor) -> Tensor:
    """The part of an output that moves, ``[N, K, h, w]``."""
    if not layout.fits(output):
        raise InvalidValueError(
            f"Outputs must have the layout {layout}; got shape {tuple(output.shape)}. Class scores "
            "have the trivial layout: output_layout=captum_lie.layouts.TRIVIAL."
        )
    return layout.to_image(output)
