"""The cells of a sweep and their keys."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from captum_lie import examples
from captum_lie.results.measurement import SCHEMA_VERSION
from captum_lie.studies.specs import ModelSpec
from captum_lie.studies.sweeping.images import Split
from captum_lie.studies.sweeping.listing import Asked
from captum_lie.studies.sweeping.settings import SweepSettings


@dataclass(frozen=True)
class Task:
    """One cell to be computed: a model on a set of images.

    Attributes:
        key: hash of settings, weights and images.
        asked: the model.
        split: the images.
    """

    key: str
    asked: Asked
    split: Split


@dataclass(frozen=True)
class Grid:
    """All cells of a sweep, model by model."""

    tasks: tuple[Task, ...]
    settings: SweepSettings

    def models(self) -> list[list[Task]]:
        """The tasks of each model."""
        by_label: dict[str, list[Task]] = {}
        for task in self.tasks:
            by_label.setdefault(task.asked.spec.label, []).append(task)
        return list(by_label.values())

    def shard(self, index: int, count: int) -> Grid:
        """Every ``count``-th model from the ``index``-th on, with all its cells."""
        chosen = self.models()[index::count]
        return Grid(tuple(task for tasks in chosen for task in tasks), self.settings)


def grid_of(
    models: Sequence[Asked],
    splits: Sequence[Split],
    settings: SweepSettings,
    fingerprints: Mapping[str, str],
) -> Grid:
    """Each model on each set of images.

    Args:
        fingerprints: of the splits, by name.

    Raises:
        FileNotFoundError: a checkpoint or a factory's file is not there.
    """
    tasks = []
    for asked in models:
        weights = weights_of(asked.spec)
        for split in splits:
            content = [SCHEMA_VERSION, settings.plain(), weights, fingerprints[split.name]]
            text = json.dumps(content, sort_keys=True)
            tasks.append(Task(hashlib.sha256(text.encode()).hexdigest()[:24], asked, split))
    return Grid(tuple(tasks), settings)


def weights_of(spec: ModelSpec) -> str:
    """What stands for a model's weights in the key, without loading them.

    The content of a checkpoint, of a factory's file or of embedded weights; else the name, with the
    tag of the weights, by which a registry knows them.

    Raises:
        FileNotFoundError: there is no such file.

    Example:
        >>> weights_of(ModelSpec("a", "timm:resnet18.a1_in1k"))
        'timm:resnet18.a1_in1k'
    """
    parts = [spec.name]
    if ".py:" in spec.name:
        parts.append(_content(Path(spec.name.rpartition(":")[0])))
    if spec.name in examples.MODEL_NAMES and not spec.random:
        weights = files("captum_lie.examples").joinpath("data", f"{spec.name}.safetensors")
        parts.append(hashlib.sha256(weights.read_bytes()).hexdigest())
    if spec.checkpoint is not None:
        parts.append(_content(spec.checkpoint))
    if spec.random:
        parts.append("random")
    return " ".join(parts)


def _content(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            found.update(block)
    return found.hexdigest()
