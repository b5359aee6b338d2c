"""What a file's own behaviour tells without a reference: repeats, batches, graph optimisation."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from captum_lie_onnx.behaviour import Array, scores
from captum_lie_onnx.subjects import OnnxSubject
from captum_lie_onnx.thresholds import Check, check

#: Images that the checks are made on.
_MOST = 32


def self_checks(
    subject: OnnxSubject,
    images: Tensor,
    outputs: Array,
    batch_size: int,
    thresholds: Mapping[str, float],
) -> list[Check]:
    """Does the file give the same again, alone as in a batch, with and without optimisation?

    Args:
        outputs: scores of the images, ``[N, K]``, from ``batch_size`` at a time.
    """
    chosen, expected = images[:_MOST], outputs[:_MOST]
    largest = float(np.abs(expected).max()) or 1.0
    again = scores(subject.model, chosen, batch_size)
    alone = scores(subject.model, chosen, 1)
    with subject.model.reoptimized("none"):
        plain = scores(subject.model, chosen, batch_size)
    checks = [
        *check(
            thresholds,
            "repeat.max_absolute",
            _largest(again, expected),
            detail="a second run of the same images",
        ),
        *check(
            thresholds,
            "batch.max_relative",
            _largest(alone, expected) / largest,
            detail="images run one by one, against in a batch",
        ),
        *check(
            thresholds,
            "optimization.max_relative",
            _largest(plain, expected) / largest,
            detail="graph optimisation off, against on",
        ),
    ]
    if subject.derivative is not None:
        found = torch.cat([subject.derivative(x)[0] for x in chosen.split(batch_size)])
        wanted = subject.derivative.output_fn(torch.from_numpy(expected.copy()))
        checks += check(
            thresholds,
            "derivative.max_absolute",
            float((found - wanted).abs().max()),
            detail="outputs of the derivative's graph, against the model's",
        )
    return checks


def _largest(first: Array, second: Array) -> float:
    return float(np.abs(first.astype(np.float64) - second).max())
