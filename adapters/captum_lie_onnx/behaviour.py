"""How a model behaves on a set of images: all that an audit needs to compare it with another."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from captum_lie import metrics
from captum_lie.errors import InvalidValueError
from captum_lie.extending.metrics import call
from captum_lie.extending.tensors import progress
from captum_lie.groups import OneParameterGroup
from captum_lie.metrics import MetricResult, MetricTable
from captum_lie_onnx.changes import change_curves
from captum_lie_onnx.scores import class_scores

Array = NDArray[Any]
Model = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Plan:
    """What to measure, the same for every model of an audit.

    Attributes:
        metrics: sampling-based metrics by name.
        groups: for LEE and the metrics that take groups.
        n_samples: transformations per image of the sampled metrics.
        seed: with an image's position it determines its transformations.
        batch_size: images at a time.
        show_progress: show progress bars.
    """

    metrics: Sequence[str]
    groups: Sequence[OneParameterGroup]
    n_samples: int = 4
    seed: int = 0
    batch_size: int = 16
    show_progress: bool = False


@dataclass(frozen=True, eq=False)
class Behaviour:
    """What one model does on N images.

    Attributes:
        name: of the model.
        backend: what ran it.
        outputs: scores ``[N, K]``, float32.
        metrics: the sampling-based metrics of :mod:`captum_lie.metrics`.
        lee: LEE of each group; its parameter ``method`` says how it was taken.
        curves: share of predictions that shifts and rotations of growing size change.
        images_sha256: of the images' values, to compare like with like.
    """

    name: str
    backend: str
    outputs: Array
    metrics: MetricTable
    lee: MetricTable
    curves: MetricTable
    images_sha256: str

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON; the outputs as base64 of little-endian float32."""
        outputs = np.ascontiguousarray(self.outputs, dtype="<f4")
        return {
            "name": self.name,
            "backend": self.backend,
            "images_sha256": self.images_sha256,
            "outputs": {
                "shape": list(outputs.shape),
                "float32_base64": base64.b64encode(outputs.tobytes()).decode(),
            },
            "metrics": [r.to_dict() for r in self.metrics],
            "lee": [r.to_dict() for r in self.lee],
            "curves": [r.to_dict() for r in self.curves],
        }

    @staticmethod
    def from_dict(content: Mapping[str, Any]) -> Behaviour:
        """The inverse of :meth:`to_dict`."""
        raw = base64.b64decode(content["outputs"]["float32_base64"], validate=True)
        tables = {
            name: MetricTable([MetricResult.from_dict(r) for r in content[name]])
            for name in ("metrics", "lee", "curves")
        }
        return Behaviour(
            name=content["name"],
            backend=content["backend"],
            images_sha256=content["images_sha256"],
            outputs=np.frombuffer(raw, dtype="<f4").reshape(content["outputs"]["shape"]),
            **tables,
        )


def observe(
    model: Model,
    images: Tensor,
    plan: Plan,
    *,
    name: str,
    backend: str,
    lee: Callable[[], MetricTable],
) -> Behaviour:
    """Run everything that an audit measures on one model.

    Args:
        model: images ``[n, C, H, W]`` in [0, 1] to scores ``[n, K]``.
        lee: takes this model's LEE on the images, the way that suits it.
    """
    outputs = scores(model, images, plan.batch_size, f"{name}: scores", plan.show_progress)
    table = MetricTable([])
    if plan.metrics:
        table = metrics.measure(
            model,
            images,
            plan.metrics,
            groups=list(plan.groups),
            n_samples=plan.n_samples,
            seed=plan.seed,
            batch_size=plan.batch_size,
            show_progress=plan.show_progress,
        )
    return Behaviour(
        name=name,
        backend=backend,
        outputs=outputs,
        metrics=table,
        lee=lee(),
        curves=change_curves(model, images, outputs.argmax(1), plan.batch_size, plan.show_progress),
        images_sha256=fingerprint(images),
    )


def scores(
    model: Model,
    images: Tensor,
    batch_size: int,
    description: str = "scores",
    show_progress: bool = False,
) -> Array:
    """The model's outputs ``[N, K]``.

    Raises:
        TypeError, ValueError: not one finite row of scores per image.
    """
    parts = images.split(batch_size)
    rows = [
        class_scores(call(model, x))
        for x in progress(parts, description, len(parts), show_progress)
    ]
    outputs = torch.cat(rows)
    if outputs.ndim != 2:
        raise InvalidValueError(
            f"An audit needs class scores [N, K]; {description} gave {tuple(outputs.shape)}."
        )
    return outputs.float().numpy()


def fingerprint(images: Tensor) -> str:
    """SHA-256 of shape and values."""
    values = np.ascontiguousarray(images.float().cpu().numpy(), dtype="<f4")
    return hashlib.sha256(str(values.shape).encode() + values.tobytes()).hexdigest()
