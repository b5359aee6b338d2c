"""A whole study: what ``captum-lie measure`` and ``demo`` do between options and report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import torch

from captum_lie.core.groups import OneParameterGroup
from captum_lie.images import Batches, ImageSource
from captum_lie.results import Measurement, ModelRecord, Subject
from captum_lie.studies.candidates import Candidate
from captum_lie.studies.layer_baselines import LayerBaselines, with_baselines
from captum_lie.studies.layers import LayerOptions, decomposed
from captum_lie.studies.measurement import Baselines, Options, measure
from captum_lie.studies.preparation import Demands, prepare
from captum_lie.studies.sharding import Shard

#: Batches on which the layerwise part of a report is computed.
LAYER_BATCHES = 2


@dataclass(frozen=True)
class Plan:
    """What to measure and how.

    Attributes:
        groups: of LEE, maps and metrics.
        demands: on the images.
        options: of LEE and maps.
        baselines: metrics beside it.
        layer_groups: decompose LEE over the modules under these.
        layer_baselines: what else is measured of single modules and head networks.
        shard: measure this part of the images alone.
        title: of the report.
        settings: for the record.
    """

    groups: Sequence[OneParameterGroup]
    demands: Demands = field(default_factory=Demands)
    options: Options = field(default_factory=Options)
    baselines: Baselines = field(default_factory=Baselines)
    layer_groups: Sequence[OneParameterGroup] = ()
    layer_baselines: LayerBaselines = field(default_factory=LayerBaselines)
    shard: Shard = field(default_factory=Shard)
    title: str = "captum-lie"
    settings: dict[str, Any] = field(default_factory=dict)


def carry_out(
    plan: Plan, candidates: Sequence[Candidate], source: ImageSource, device: torch.device
) -> Measurement:
    """Measure all candidates as planned.

    Raises:
        ValueError: a model does not take its images, or no image can be read.
    """
    placed = [candidate.to(device) for candidate in candidates]
    whole, subjects = prepare(placed, source, plan.demands)
    batches = {name: plan.shard.of(own) for name, own in whole.items()}
    first = max((own.first for own in batches.values()), default=0)
    options = replace(plan.options, first=first)
    if first:
        options = replace(options, pictured=0)  # those of the first shard are shown
    measured = measure(placed, batches, plan.groups, options, baselines=plan.baselines)
    models = [
        _completed(record, candidate, batches[record.name], subjects[record.name], plan)
        for record, candidate in zip(measured.models, placed, strict=True)
    ]
    return replace(
        measured,
        models=tuple(models),
        title=plan.title,
        settings=plan.settings
        | {"device": device.type, "seed": options.seed, "probes": options.n_probes},
    )


def _completed(
    record: ModelRecord, candidate: Candidate, batches: Batches, subject: Subject, plan: Plan
) -> ModelRecord:
    record = replace(record, subject=subject)
    left = LAYER_BATCHES - batches.first // batches.batch_size
    if not plan.layer_groups or not candidate.trained or left < 1:
        return record
    options = LayerOptions(most_batches=left, pictured=1, show_progress=plan.options.show_progress)
    record = decomposed(record, candidate, batches, plan.layer_groups, options)
    return with_baselines(
        record,
        candidate.model,
        list(islice(batches, left)),
        plan.layer_groups,
        plan.layer_baselines,
    )
