"""What EQ-T, fractional EQ-T and EQ-R have in common: move images, compare outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from captum_lie.core.derivative import OutputFn
from captum_lie.core.validation import one_of
from captum_lie.errors import InvalidValueError
from captum_lie.layouts import Layout
from captum_lie.metrics.sinc import SINC_BORDERS, SincBorder
from captum_lie.metrics.streaming import (
    Images,
    Model,
    apply_output_fn,
    blocks,
    call,
    check_samples,
    respond,
    squared_change,
    uniform,
)
from captum_lie.results.metrics import Array, MetricResult, summarise

Size = tuple[int, int]
Parameters = Mapping[str, Array]


@dataclass(frozen=True)
class Motion:
    """What distinguishes the three metrics.

    ``plan(draws [n, K, d], input size, output size)`` gives the parameters, each ``[n, K]``;
    ``act(x, parameters [n], output pixels per input pixel)`` a moved batch and its valid region;
    ``match(x, parameters [n])`` makes ``f(T x)`` comparable with ``T f(x)``.
    """

    name: str
    n_draws: int
    plan: Callable[[Array, Size, Size], Parameters]
    act: Callable[[Tensor, Parameters, tuple[float, float]], tuple[Tensor, Tensor]]
    match: Callable[[Tensor, Parameters], tuple[Tensor, Tensor]] | None = None
    parameters: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Options:
    border: SincBorder
    output_fn: OutputFn | None
    output_layout: Layout
    margin: int
    data_range: float
    n_samples: int
    seed: int
    batch_size: int
    show_progress: bool

    def __post_init__(self) -> None:
        one_of("border", self.border, SINC_BORDERS)
        check_samples(self.n_samples)
        if self.data_range <= 0:
            raise InvalidValueError(f"data_range must be positive; got {self.data_range}.")
        if self.margin < 0:
            raise InvalidValueError(f"margin must not be negative; got {self.margin} pixels.")


def measure_motion(motion: Motion, model: Model, images: Images, options: Options) -> MetricResult:
    errors: list[Tensor] = []
    index: list[Array] = []
    drawn: list[Parameters] = []
    for block in blocks(
        model,
        images,
        batch_size=options.batch_size,
        description=motion.name,
        show_progress=options.show_progress,
    ):
        reference = apply_output_fn(options.output_fn, call(model, block.images))
        size = _size(block.images)
        out = size
        if options.output_layout.moves:
            reference = _image(options.output_layout, reference)
            out = _size(reference)
        draws = uniform(motion.name, options.seed, block.index, (options.n_samples, motion.n_draws))
        p = motion.plan(draws, size, out)

        def move(x: Tensor, example: Array, sample: Array, p: Parameters = p) -> Tensor:
            return motion.act(x, {k: v[example, sample] for k, v in p.items()}, (1, 1))[0]

        if not options.output_layout.moves:
            error = squared_change(
                model,
                block,
                options.n_samples,
                move,
                output_fn=options.output_fn,
                reference=reference,
                batch_size=options.batch_size,
            ).mean(1)
        else:
            moved = respond(model, block.images, options.n_samples, move, options.batch_size)
            error = _dense_error(motion, moved, reference, p, size, options)
        errors.append(error)
        index.append(block.index)
        drawn.append(p)
    return summarise(
        motion.name,
        torch.cat(errors).numpy(),
        unit="mean square of the output",
        border=options.border,
        index=np.concatenate(index),
        parameters={
            **motion.parameters,
            "output_layout": str(options.output_layout),
            "margin": options.margin,
            "data_range": options.data_range,
            "n_samples": options.n_samples,
            "seed": options.seed,
        },
        transformations={k: np.concatenate([p[k] for p in drawn]) for k in drawn[0]},
    )


def _dense_error(
    motion: Motion,
    moved: Tensor,
    reference: Tensor,
    p: Parameters,
    size: Size,
    options: Options,
) -> Tensor:
    """Mean square of ``f(T x) − T f(x)`` over all valid pixels of each image, ``[n]``."""
    height, width = _size(reference)
    margin = options.margin
    interior = torch.zeros(height, width, dtype=torch.bool)
    interior[margin : height - margin, margin : width - margin] = True
    squares = torch.zeros(len(reference), dtype=torch.float64)
    valid = torch.zeros_like(squares)
    for sample, raw in enumerate(moved):
        output = _image(options.output_layout, apply_output_fn(options.output_fn, raw))
        parameters = {k: v[:, sample] for k, v in p.items()}
        expected, mask = motion.act(reference, parameters, (height / size[0], width / size[1]))
        mask = mask & interior
        if motion.match is not None:
            output, known = motion.match(output, parameters)
            mask = mask & known
        squares += ((output - expected).square().mean(1, keepdim=True) * mask).flatten(1).sum(1)
        valid += mask.flatten(1).sum(1)
    if not valid.all():
        raise InvalidValueError(
            f"No valid pixel is left of outputs {height} × {width} after {motion.name}. Use "
            "border='circular', a smaller margin or kernel, smaller motions, or larger images."
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
