"""What a sweep measures, and with what means."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from captum_lie.core.groups import GROUP_NAMES, OneParameterGroup, get_groups
from captum_lie.core.resampling import Border, Interpolation
from captum_lie.core.validation import one_of
from captum_lie.errors import InvalidValueError
from captum_lie.layerwise.motions import METRICS as LAYER_METRICS
from captum_lie.metrics import METRIC_NAMES


@dataclass(frozen=True)
class SweepSettings:
    """All that decides the numbers of a cell, but its model and images.

    Attributes:
        groups: names.
        interpolation, border: rule of the groups.
        metrics: names of baseline metrics; LEE is measured anyway.
        layers: also decompose LEE over the modules, under ``layer_groups``.
        layer_metrics: with ``layers``, names of sampled metrics of each module alone.
        subnetworks: with ``layers``, also the errors of the head networks.
        control: also measure the untrained twin, where there is one.
        relative: also the relative LEE.
        norm, n_probes, seed: see :class:`captum_lie.LocalEquivarianceError`.
        n_samples: transformations per image of the sampled metrics.
        size, channels: of the images, instead of what each model expects.
        pretrained: False for random weights everywhere.

    Raises:
        ValueError: an unknown group or metric.
    """

    groups: tuple[str, ...] = GROUP_NAMES
    interpolation: Interpolation = "bilinear"
    border: Border | None = None
    metrics: tuple[str, ...] = ()
    layers: bool = False
    layer_groups: tuple[str, ...] = ("translation_x",)
    control: bool = False
    relative: bool = True
    norm: Literal["l2", "l1"] = "l2"
    n_probes: int = 8
    seed: int = 0
    n_samples: int = 10
    size: tuple[int, int] | None = None
    channels: int | None = None
    pretrained: bool = True
    layer_metrics: tuple[str, ...] = ()
    subnetworks: bool = False

    def __post_init__(self) -> None:
        for name in (*self.groups, *self.layer_groups):
            one_of("group", name, GROUP_NAMES)
        for name in self.metrics:
            one_of("metric", name, METRIC_NAMES)
        for name in self.layer_metrics:
            one_of("metric", name, LAYER_METRICS)
        if (self.layer_metrics or self.subnetworks) and not self.layers:
            raise InvalidValueError(
                "Metrics of modules and subnetworks belong to the layerwise part: add --layers."
            )

    def resolved(self, names: tuple[str, ...]) -> list[OneParameterGroup]:
        """Groups by name, under the rule in force."""
        return get_groups(names, interpolation=self.interpolation, border=self.border)

    def plain(self) -> dict[str, Any]:
        """As JSON has it.

        What came later is left out at its default, so that cells of earlier sweeps keep their keys.

        Example:
            >>> "subnetworks" in SweepSettings().plain()
            False
        """
        given = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return {k: v for k, v in given.items() if v or k not in ("layer_metrics", "subnetworks")}

    @staticmethod
    def from_plain(values: dict[str, Any]) -> SweepSettings:
        """The inverse of :meth:`plain`.

        Example:
            >>> settings = SweepSettings(groups=("rotation",), size=(32, 32))
            >>> SweepSettings.from_plain(settings.plain()) == settings
            True
        """
        arguments: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        return SweepSettings(**arguments)


@dataclass(frozen=True)
class Resources:
    """With what means cells are computed; decides no number beyond rounding.

    Attributes:
        batch_size: images at a time; halved where they do not fit the memory.
        timeout: seconds a cell, loading included; None for no limit.
        memory: GiB that a model's process may take beyond what it starts with; None for no limit.
        devices: one process at a time on each; by default every GPU, or else the CPU.
    """

    batch_size: int = 16
    timeout: float | None = None
    memory: float | None = None
    devices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("batch_size", "timeout", "memory"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise InvalidValueError(f"{name} must be positive; got {value}.")
