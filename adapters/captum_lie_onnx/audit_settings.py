"""What an audit can be told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from captum_lie.extending.checks import one_of
from captum_lie.groups import GroupLike, get_groups
from captum_lie_onnx.behaviour import Plan
from captum_lie_onnx.limits import Limits
from captum_lie_onnx.metadata import Preprocessing
from captum_lie_onnx.thresholds import METRICS

#: Groups of an audit that names none: finite differences take 12 evaluations per image and group.
GROUPS = ("translation_x", "translation_y", "rotation", "scale", "brightness")


class AuditOptions(TypedDict, total=False):
    """:class:`AuditSettings` as keywords."""

    derivative: Path | str | None
    preprocessing: Preprocessing | None
    groups: Sequence[GroupLike]
    metrics: Sequence[str]
    n_samples: int
    seed: int
    thresholds: Mapping[str, float] | None
    size: tuple[int, int] | None
    limit: int | None
    max_unreadable: float
    batch_size: int
    threads: int | None
    limits: Limits | None
    reference_name: str | None
    show_progress: bool


@dataclass(frozen=True)
class AuditSettings:
    """What an audit can be told; each is explained by :func:`captum_lie_onnx.audit`.

    Raises:
        ValueError: an unknown metric.

    Example:
        >>> AuditSettings(groups=["rotation"]).plan().groups[0].name
        'rotation'
    """

    derivative: Path | str | None = None
    preprocessing: Preprocessing | None = None
    groups: Sequence[GroupLike] = GROUPS
    metrics: Sequence[str] = METRICS
    n_samples: int = 4
    seed: int = 0
    thresholds: Mapping[str, float] | None = None
    size: tuple[int, int] | None = None
    limit: int | None = 128
    max_unreadable: float = 0.1
    batch_size: int = 16
    threads: int | None = None
    limits: Limits | None = None
    reference_name: str | None = None
    show_progress: bool = False

    def __post_init__(self) -> None:
        for name in self.metrics:
            one_of("metric", name, METRICS)

    def plan(self) -> Plan:
        """What to measure."""
        return Plan(
            metrics=list(self.metrics),
            groups=get_groups(list(self.groups)),
            n_samples=self.n_samples,
            seed=self.seed,
            batch_size=self.batch_size,
            show_progress=self.show_progress,
        )
