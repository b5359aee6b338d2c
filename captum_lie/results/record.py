"""What was measured of one model on one set of images."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field, replace
from typing import Literal

import pandas as pd
import torch
from torch import Tensor

from captum_lie.results.layer_maps import LayerMap
from captum_lie.results.layerwise import LayerwiseResult
from captum_lie.results.lee import LeeResult
from captum_lie.results.metrics import MetricTable
from captum_lie.results.sampled import SampledResult
from captum_lie.results.subnetworks import SubnetworkResult

Role = Literal["trained", "control"]


@dataclass(frozen=True)
class Subject:
    """What a report says of a model beside its numbers.

    Attributes:
        what: its name in full, and where its weights come from.
        input: shape of the images that it saw.
        prepared: how they were made.
        labels: how labels were matched with its classes, or why not.
        weights: digest of its parameters and buffers.
    """

    what: str
    input: str
    prepared: str
    labels: str = "none"
    weights: str = ""


@dataclass(frozen=True, eq=False)
class ModelRecord:
    """One model on N images.

    Attributes:
        name: in tables and pictures.
        role: a ``"control"`` is there for comparison, an untrained twin say.
        control_of: the name of the model that it is the control of.
        subject: what it is and saw.
        lee: per image and group, with the Gram matrix.
        metrics: baseline metrics.
        layers: decompositions over the modules, one for each group.
        sampled: sampling-based errors of single modules, one for each metric.
        subnetworks: errors of the head networks, one for each group.
        correct: whether it classified each image correctly, ``[N]``, where labels are known.
        images: digest of each image as it saw it, ``[N, 8]`` bytes.
        shown: the images of which there are maps, as it saw them, ``[n, C, H, W]``.
        maps: attribution of each group over ``shown``; each sums to its image's LEE.
        layer_maps: of each group, where in ``shown`` the leading modules add to the error.
    """

    name: str
    role: Role = "trained"
    control_of: str | None = None
    subject: Subject | None = None
    lee: LeeResult | None = None
    metrics: MetricTable | None = None
    layers: tuple[LayerwiseResult, ...] = ()
    sampled: tuple[SampledResult, ...] = ()
    subnetworks: tuple[SubnetworkResult, ...] = ()
    correct: Tensor | None = None
    images: Tensor | None = None
    shown: Tensor | None = None
    maps: dict[str, Tensor] = field(default_factory=dict)
    layer_maps: dict[str, tuple[LayerMap, ...]] = field(default_factory=dict)

    @property
    def trained(self) -> bool:
        return self.role == "trained"

    @property
    def accuracy(self) -> float | None:
        """Share of the images classified correctly, if known."""
        return None if self.correct is None else float(self.correct.double().mean())

    @property
    def accuracy_stderr(self) -> float | None:
        """Standard error of the accuracy; None for a single image."""
        if self.correct is None or len(self.correct) < 2:
            return None
        return float(self.correct.double().std()) / math.sqrt(len(self.correct))

    @property
    def images_digest(self) -> str:
        """One digest of all images, in their order."""
        if self.images is None:
            return ""
        return hashlib.sha256(self.images.numpy().tobytes()).hexdigest()[:16]

    def table(self) -> pd.DataFrame:
        """LEE, a row per group: model, those of :meth:`LeeResult.to_dataframe`, role, control_of.

        Example:
            >>> lee = LeeResult(("scale",), torch.ones(2, 1).double())
            >>> table = ModelRecord("cnn", lee=lee).table()
            >>> table[["model", "group", "lee", "role"]].values.tolist()
            [['cnn', 'scale', 1.0, 'trained']]
        """
        assert self.lee is not None
        table = self.lee.to_dataframe()
        table.insert(0, "model", self.name)
        return table.assign(role=self.role, control_of=self.control_of)


def joined(parts: list[ModelRecord]) -> ModelRecord:
    """Records of one model on consecutive sets of images as one; pictures are the first part's.

    Raises:
        ValueError: groups, metrics or module calls differ from part to part.
    """
    lee = [p.lee for p in parts if p.lee is not None]
    tables = [p.metrics for p in parts if p.metrics is not None]
    layers = zip(*(p.layers for p in parts if p.layers), strict=True)
    sampled = zip(*(p.sampled for p in parts if p.sampled), strict=True)
    heads = zip(*(p.subnetworks for p in parts if p.subnetworks), strict=True)
    return replace(
        parts[0],
        lee=LeeResult.concatenate(lee) if lee else None,
        metrics=MetricTable.concatenate(tables) if tables else None,
        layers=tuple(LayerwiseResult.concatenate(of_one) for of_one in layers),
        sampled=tuple(SampledResult.concatenate(of_one) for of_one in sampled),
        subnetworks=tuple(SubnetworkResult.concatenate(of_one) for of_one in heads),
        correct=_rows([p.correct for p in parts]),
        images=_rows([p.images for p in parts]),
    )


def _rows(parts: list[Tensor | None]) -> Tensor | None:
    present = [part for part in parts if part is not None]
    return torch.cat(present) if len(present) == len(parts) else None
