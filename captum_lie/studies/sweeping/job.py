"""One model's cells, computed in a process of its own."""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from captum_lie.core.validation import is_out_of_memory
from captum_lie.errors import UserError
from captum_lie.images import Batches, ImageSource
from captum_lie.results import Environment, ModelRecord
from captum_lie.results.cell import Cell, Facts
from captum_lie.studies.candidates import Candidate
from captum_lie.studies.layer_baselines import LayerBaselines
from captum_lie.studies.limits import limit_memory
from captum_lie.studies.measurement import Baselines, Options
from captum_lie.studies.plan import Plan, carry_out
from captum_lie.studies.preparation import Demands
from captum_lie.studies.specs import ModelSpec, candidates_from
from captum_lie.studies.sweeping.grid import Task
from captum_lie.studies.sweeping.images import Split
from captum_lie.studies.sweeping.listing import Asked
from captum_lie.studies.sweeping.settings import Resources, SweepSettings
from captum_lie.studies.sweeping.store import Store


@dataclass(frozen=True)
class Job:
    """What a process is told.

    Attributes:
        tasks: of one model.
        settings, resources: of the sweep.
        device: to compute on.
        folder: of the sweep.
    """

    tasks: tuple[Task, ...]
    settings: SweepSettings
    resources: Resources
    device: str
    folder: Path

    def text(self) -> str:
        """As JSON."""
        asked = self.tasks[0].asked
        spec = asked.spec
        return json.dumps(
            {
                "spec": [spec.label, spec.name, spec.random,
                         None if spec.checkpoint is None else str(spec.checkpoint)],
                "family": asked.family,
                "kind": asked.kind,
                "cells": [
                    [t.key, t.split.name, t.split.source, t.split.limit] for t in self.tasks
                ],
                "settings": self.settings.plain(),
                "batch_size": self.resources.batch_size,
                "memory": self.resources.memory,
                "device": self.device,
                "folder": str(self.folder),
            }
        )  # fmt: skip

    @staticmethod
    def parse(text: str) -> Job:
        """The inverse of :meth:`text`."""
        told: dict[str, Any] = json.loads(text)
        label, name, random, checkpoint = told["spec"]
        spec = ModelSpec(label, name, None if checkpoint is None else Path(checkpoint), random)
        asked = Asked(spec, told["family"], told["kind"])
        return Job(
            tuple(Task(key, asked, Split(*split)) for key, *split in told["cells"]),
            SweepSettings.from_plain(told["settings"]),
            Resources(batch_size=told["batch_size"], memory=told["memory"]),
            told["device"],
            Path(told["folder"]),
        )


def carry_out_limited(job: Job) -> None:
    """:func:`carry_out_job` in a process of its own, whose memory is limited for good."""
    if job.resources.memory is not None:
        limit_memory(int(job.resources.memory * 2**30))
    carry_out_job(job)


def carry_out_job(job: Job) -> None:
    """Compute each cell and store it; a failure is a cell, too, with its cause."""
    store = Store(job.folder, room=0)
    candidates: list[Candidate] = []
    for task in job.tasks:
        started = time.perf_counter()
        cell = blank(task, job.settings)
        try:
            if not candidates:
                candidates = candidates_from(
                    [task.asked.spec],
                    pretrained=job.settings.pretrained,
                    control=job.settings.control,
                )
            cell = measured(cell, candidates, task.split.open(), job)
        except BaseException as error:  # whatever a factory may raise, SystemExit among it
            if isinstance(error, KeyboardInterrupt):
                raise
            cell = failed(cell, error)
        seconds = round(time.perf_counter() - started, 2)
        store.write(replace(cell, seconds=seconds, environment=Environment.here(job.device)))


def blank(task: Task, settings: SweepSettings) -> Cell:
    """A cell before it is computed."""
    asked = task.asked
    return Cell(
        task.key,
        asked.spec.name + ("@random" if asked.spec.random else ""),
        asked.spec.label,
        task.split.name,
        asked.family,
        asked.kind,
        settings=settings.plain() | {"images": task.split.source, "limit": task.split.limit},
    )


def failed(cell: Cell, error: BaseException) -> Cell:
    """A cell with the cause of its failure, on one line and in full."""
    message = str(error).strip().split("\n")[0]
    cause = "out of memory" if is_out_of_memory(error) else type(error).__name__
    if isinstance(error, UserError | OSError):  # their messages are for users
        cause, message = message or cause, ""
    return replace(
        cell,
        status="failed",
        cause=f"{cause}: {message}" if message else cause,
        traceback="".join(traceback.format_exception(error)),
    )


def measured(cell: Cell, candidates: Sequence[Candidate], source: ImageSource, job: Job) -> Cell:
    """The cell with its numbers; the batch is halved as long as it does not fit the memory."""
    size = job.resources.batch_size
    while True:
        plan = plan_of(job.settings, size)
        try:
            measurement = carry_out(plan, candidates, source, torch.device(job.device))
        except Exception as error:
            if not is_out_of_memory(error) or size == 1:
                raise
            size //= 2
        else:
            records = tuple(without_pictures(model) for model in measurement.models)
            facts = facts_of(candidates[0], source, plan.demands)
            return replace(cell, records=records, facts=facts, batch_size=size)
        gc.collect()
        if job.device.startswith("cuda"):
            torch.cuda.empty_cache()


def plan_of(settings: SweepSettings, batch_size: int) -> Plan:
    """What is done for one cell."""
    return Plan(
        settings.resolved(settings.groups),
        Demands(settings.size, settings.channels, batch_size),
        Options(
            norm=settings.norm,
            relative=settings.relative,
            n_probes=settings.n_probes,
            seed=settings.seed,
            pictured=0,
        ),
        Baselines(settings.metrics, settings.n_samples),
        layer_groups=settings.resolved(settings.layer_groups) if settings.layers else (),
        layer_baselines=LayerBaselines(
            settings.layer_metrics, settings.subnetworks, settings.n_samples, settings.seed
        ),
    )


def without_pictures(record: ModelRecord) -> ModelRecord:
    """What tables and figures need, without the images."""
    return replace(record, shown=None, maps={}, layer_maps={})


def facts_of(candidate: Candidate, source: ImageSource, demands: Demands) -> Facts:
    """What a results file of timm says of a model, and of the images that it was shown."""
    view = demands.view(candidate.model)
    first = next(iter(Batches(source, view, 1)))
    image = first[0] if isinstance(first, tuple) else first
    return Facts(
        max(image.shape[-2:]),
        round(sum(p.numel() for p in candidate.model.parameters()) / 1e6, 2),
        view.crop if view.size else None,
        view.interpolation if view.size else None,
    )


def _end_with_parent() -> None:
    """Whoever started this process holds the other end of its input: when it is gone, end."""

    def watch() -> None:
        while os.read(0, 1):  # not through sys.stdin, whose lock would abort the end of Python
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """Read the job on the first line of the input, and carry it out."""
    job = Job.parse(sys.stdin.buffer.readline().decode())
    _end_with_parent()
    carry_out_limited(job)
