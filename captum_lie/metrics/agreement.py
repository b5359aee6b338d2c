"""Discrete consistency: do predictions survive integer shifts?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from captum_lie.core.validation import one_of
from captum_lie.errors import InvalidValueError
from captum_lie.metrics.settings import SampledBatching, SampledBatchingOptions
from captum_lie.metrics.shifts import SHIFT_BORDERS, ShiftBorder, in_pixels, integer_shift
from captum_lie.metrics.streaming import Images, Model, blocks, call, respond
from captum_lie.results.metrics import Array, MetricTable, summarise

if TYPE_CHECKING:
    from typing_extensions import Unpack


def consistency(
    model: Model,
    images: Images,
    *,
    labels: Tensor | None = None,
    max_shift_pixels: int = 10,
    border: ShiftBorder = "circular",
    max_shift: int | None = None,
    **options: Unpack[SampledBatchingOptions],
) -> MetricTable:
    """Share of top-1 predictions that change under integer translations, 1 − consistency.

    Each image is moved by ``n_samples`` shifts, uniform in the square of ``max_shift_pixels`` (the
    identity has its share). Border rules disagree, and the result names the one in force: compare
    like with like.

    Args:
        model: images ``[N, C, H, W]`` to scores ``[N, K]``; any callable.
        images: a tensor, or a loader of tensors or ``(images, labels)``.
        labels: ``[N]``, for images given as one tensor.
        max_shift_pixels: along each axis.
        border: ``"circular"`` (the paper's, App. D.4), ``"reflect"``, ``"zero"``, or ``"crop"``,
            where the model sees windows ``2 max_shift_pixels`` smaller than the images.
        max_shift: the former name of ``max_shift_pixels``.
        n_samples: shifts per image, at least 2; 10 by default.
        seed: with an image's position in the data it determines its shifts; 0 by default.
        batch_size, first_index, show_progress: as for :func:`eq_t`.

    Returns:
        Variants ``"unshifted"``: against the prediction on the unshifted image; ``"pairs"``:
        between two random shifts (Zhang 2019), over all pairs of those drawn; and, where there are
        labels, ``"unshifted_correct"`` and ``"pairs_correct"``: the same over the images that are
        classified correctly when unshifted, since a model that is often wrong is inconsistent for
        that reason alone. Rates from 0 to 1, standard errors clustered by image.

    Raises:
        TypeError, ValueError: images, model output or options are not usable.

    Source:
        Zhang, "Making convolutional networks shift-invariant again" (2019); Gruver et al.,
        arXiv 2210.02984, App. D.4.

    Example:
        >>> table = consistency(lambda x: x.mean((2, 3)), torch.rand(4, 3, 16, 16))
        >>> table["unshifted"].value, table["pairs"].value
        (0.0, 0.0)
    """
    how = SampledBatching(**options)
    sampling, n_samples = how.sampling, how.n_samples
    sampling.require(2)
    one_of("border", border, SHIFT_BORDERS)
    reach = in_pixels(max_shift_pixels, max_shift)
    if reach < 0:
        raise InvalidValueError(f"max_shift_pixels must not be negative; got {reach}.")
    shifts: list[Array] = []
    index: list[Array] = []
    reference: list[Tensor] = []
    shifted: list[Tensor] = []
    correct: list[Tensor] = []
    for block in blocks(model, images, "consistency", how, labels=labels, read_labels=True):
        drawn = sampling.whole("consistency", block.index, 2, reach)

        def move(x: Tensor, example: Array, sample: Array, drawn: Array = drawn) -> Tensor:
            dx, dy = drawn[example, sample].T
            return integer_shift(x, dx, dy, border, reach)[0]

        still = np.zeros(len(block.images), dtype=np.int64)
        unmoved, _ = integer_shift(block.images, still, still, border, reach)
        reference.append(_top1(call(model, unmoved)))
        shifted.append(
            _top1(respond(model, block.images, n_samples, move, how.batch_size).flatten(0, 1))
            .unflatten(0, (n_samples, -1))
            .T
        )
        shifts.append(drawn)
        index.append(block.index)
        if block.labels is not None:
            correct.append(reference[-1] == block.labels.cpu())
    prediction = torch.cat(shifted)
    changed = (prediction != torch.cat(reference)[:, None]).double().mean(1).numpy()
    equal_pairs = (prediction[:, :, None] == prediction[:, None]).double().sum((1, 2)) - n_samples
    disagree = (1 - equal_pairs / (n_samples * (n_samples - 1))).numpy()
    position, drawn = np.concatenate(index), np.concatenate(shifts)
    subsets = {"": np.ones(len(position), dtype=bool)}
    if correct:
        subsets["_correct"] = torch.cat(correct).numpy()
    return MetricTable(
        [
            summarise(
                "consistency",
                values[chosen],
                variant=variant + suffix,
                unit="share of predictions that change",
                border=border,
                rate=True,
                index=position[chosen],
                parameters={
                    "max_shift_pixels": reach,
                    "n_samples": n_samples,
                    "seed": how.seed,
                },
                transformations={"dx_px": drawn[chosen, :, 0], "dy_px": drawn[chosen, :, 1]},
            )
            for suffix, chosen in subsets.items()
            for variant, values in (("unshifted", changed), ("pairs", disagree))
        ]
    )


def _top1(scores: Tensor) -> Tensor:
    if scores.ndim != 2:
        raise InvalidValueError(
            f"Consistency needs class scores [N, K]; got shape {tuple(scores.shape)}. "
            "Use eq_t(..., output_layout=captum_lie.layouts.NCHW) for dense outputs."
        )
    return scores.argmax(1)
