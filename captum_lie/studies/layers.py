"""Which modules are to blame: decompositions of several models over their modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal

import torch
from torch import Tensor, nn

from captum_lie.core.groups import OneParameterGroup
from captum_lie.core.loaders import device_of, to_model
from captum_lie.layerwise import LayerwiseEquivarianceError, layer_maps
from captum_lie.results import (
    Environment,
    LayerMap,
    LayerwiseResult,
    Measurement,
    ModelRecord,
    leading_calls,
)
from captum_lie.studies.candidates import Candidate, Candidates, candidates_of
from captum_lie.studies.measurement import Batched, batches_of, first_examples


@dataclass(frozen=True)
class LayerOptions:
    """How models are decomposed.

    Attributes:
        measure: ``"aligned"`` or ``"norm"``, see :class:`captum_lie.LayerwiseEquivarianceError`.
        n_probes, seed: of an estimated ``"norm"``; None for an exact one.
        most_batches: use at most so many batches.
        pictured: on how many images the leading modules' maps are drawn.
        show_progress: show a progress bar for each model.
    """

    measure: Literal["aligned", "norm"] = "aligned"
    n_probes: int | None = None
    seed: int = 0
    most_batches: int | None = None
    pictured: int = 1
    show_progress: bool = False


def decompose(
    models: Candidates,
    batches: Batched | Mapping[str, Batched],
    groups: Sequence[OneParameterGroup],
    options: LayerOptions | None = None,
) -> Measurement:
    """Decompose LEE of each model over its modules; controls are left out.

    Args:
        models, batches: as for :func:`captum_lie.studies.measure`.
        groups: one decomposition for each.
        options: how; see :class:`LayerOptions`.

    Returns:
        Records that hold ``layers``, and maps of the leading modules, but no LEE of their own.
    """
    options = options or LayerOptions()
    candidates = [c for c in candidates_of(models) if c.trained]
    records = [
        decomposed(
            ModelRecord(candidate.name), candidate, batches_of(batches, candidate.name), groups,
            options,
        )
        for candidate in candidates
    ]  # fmt: skip
    device = device_of(candidates[0].model) if candidates else None
    return Measurement(tuple(records), environment=Environment.here(device or "cpu"))


def decomposed(
    record: ModelRecord,
    candidate: Candidate,
    batches: Batched,
    groups: Sequence[OneParameterGroup],
    options: LayerOptions,
) -> ModelRecord:
    """A model's record with its decompositions, and maps over the images that it shows."""
    most = options.most_batches
    layers = LayerwiseEquivarianceError(candidate.model).evaluate(
        batches if most is None else islice(batches, most),
        list(groups),
        options.measure,
        n_probes=options.n_probes,
        seed=options.seed,
        show_progress=options.show_progress,
        description=f"{candidate.name}: layers",
    )
    shown = record.shown
    if shown is None:
        examples = first_examples(batches, options.pictured)
        shown = torch.stack(examples) if examples else None
    maps = {}
    if shown is not None:
        images = shown[: options.pictured]
        maps = {
            group.name: leading_maps(candidate.model, images, group, result)
            for group, result in zip(groups, layers, strict=True)
        }
    return replace(record, layers=tuple(layers), shown=shown, layer_maps=maps)


def leading_maps(
    model: nn.Module, images: Tensor, group: OneParameterGroup, result: LayerwiseResult
) -> tuple[LayerMap, ...]:
    """Where in the images the leading modules of a decomposition add to the error."""
    leading = leading_calls(result)
    names = list(dict.fromkeys(module for module, _ in leading))
    maps = {(m.module, m.call): m for m in layer_maps(model, to_model(model, images), names, group)}
    return tuple(
        replace(maps[key], attribution=maps[key].attribution.detach().cpu())
        for key in leading
        if key in maps
    )
