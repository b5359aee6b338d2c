"""What a file's own behaviour tells without a reference: repeats, batches, graph optimisation,
and sums of bytes that saturate."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from captum_lie_onnx.behaviour import Array, scores
from captum_lie_onnx.cpu import Capabilities
from captum_lie_onnx.subjects import OnnxSubject
from captum_lie_onnx.thresholds import Check, check, untold

#: Images that the checks are made on.
_MOST = 32


def self_checks(
    subject: OnnxSubject,
    images: Tensor,
    outputs: Array,
    batch_size: int,
    thresholds: Mapping[str, float],
    cpu: Capabilities,
) -> list[Check]:
    """Does the file give the same again, alone as in a batch, with and without optimisation, and,
    if it computes in int8, with sums that cannot saturate?

    Args:
        outputs: scores of the images, ``[N, K]``, from ``batch_size`` at a time.
        cpu: what this runs on.
    """
    chosen, expected = images[:_MOST], outputs[:_MOST]
    largest = float(np.abs(expected).max()) or 1.0
    again = scores(subject.model, chosen, batch_size)
    alone = scores(subject.model, chosen, 1)
    with subject.model.optimised_anew("none"):
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
    if subject.file.precision == "int8":
        with subject.model.precise():
            exact = scores(subject.model, chosen, batch_size)
        checks += saturation(_largest(exact, expected) / largest, cpu, thresholds)
    if subject.derivative is not None:
        of_graph = torch.cat([subject.derivative(x)[0] for x in chosen.split(batch_size)])
        of_model = subject.derivative.output_fn(torch.from_numpy(expected.copy()))
        checks += check(
            thresholds,
            "derivative.max_absolute",
            float((of_graph - of_model).abs().max()),
            detail="outputs of the derivative's graph, against the model's",
        )
    return checks


def saturation(
    difference: float, cpu: Capabilities, thresholds: Mapping[str, float]
) -> list[Check]:
    """The verdict on sums of bytes that saturate, which only some CPUs can show.

    Args:
        difference: between scores with ``session.x64quantprecision`` off and on, relative.
    """
    name = "saturation.max_relative"
    if difference or cpu.saturates:
        return check(thresholds, name, difference, detail="exact sums of u8·s8 products, against "
                     "this CPU's own, which may saturate; reduce_range avoids it")  # fmt: skip
    why = (
        f"it cannot be told whether {cpu.describe()} has VNNI"
        if cpu.saturates is None
        else f"{cpu.describe()} adds them exactly anyway"
    )
    return untold(
        thresholds, name, f"this CPU cannot show whether sums of u8·s8 products saturate on x86 "
        f"CPUs without VNNI: {why}"
    )  # fmt: skip


def _largest(first: Array, second: Array) -> float:
    return float(np.abs(first.astype(np.float64) - second).max())
