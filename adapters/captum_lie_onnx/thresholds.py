"""Verdicts: what an audit tolerates, line by line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, SupportsFloat

from captum_lie.errors import InvalidTypeError, InvalidValueError
from captum_lie.extending.checks import one_of
from captum_lie.extending.compat import tomllib
from captum_lie.metrics import METRIC_NAMES

Status = Literal["pass", "fail", "inconclusive"]
Thresholds = dict[str, float]

#: Sampling-based metrics of an audit; finite differences have a part of their own.
METRICS: tuple[str, ...] = tuple(name for name in METRIC_NAMES if name != "lee_fd")

#: Lines on which at least, not at most, the threshold must be reached.
_FLOORS = ("parity.top1_agreement", "parity.top5_agreement")

#: For a model that should compute the same numbers as its reference: an export.
EXPORT: Thresholds = {
    "parity.max_relative": 2e-5,
    "parity.top1_agreement": 0.99,
    "parity.top5_agreement": 0.99,
    "optimization.max_relative": 1e-4,
    "batch.max_relative": 1e-4,
    "repeat.max_absolute": 0.0,
    "saturation.max_relative": 1e-4,
    "derivative.max_absolute": 1e-4,
    "difference.consistency": 0.01,
    **{f"difference.{name}": 0.01 for name in METRICS if name != "consistency"},
    "difference.changed_by_shift": 0.01,
    "difference.changed_by_rotation": 0.01,
    "difference.lee": 0.05,
}

#: For a model that trades accuracy for speed: an int8 or float16 variant.
QUANTIZED: Thresholds = EXPORT | {
    "parity.max_relative": 0.1,
    "parity.top1_agreement": 0.95,
    "parity.top5_agreement": 0.9,
    "optimization.max_relative": 0.1,
    "saturation.max_relative": 0.01,
    "difference.consistency": 0.03,
    **{f"difference.{name}": 0.25 for name in METRICS if name != "consistency"},
    "difference.changed_by_shift": 0.05,
    "difference.changed_by_rotation": 0.05,
    "difference.lee": 0.5,
}

PRESETS: dict[str, Thresholds] = {"export": EXPORT, "quantized": QUANTIZED}

#: Limits on the candidate's own numbers: none unless set.
VALUES: tuple[str, ...] = tuple(
    f"value.{name}" for name in (*METRICS, "lee", "changed_by_shift", "changed_by_rotation")
)


@dataclass(frozen=True)
class Check:
    """One line of an audit.

    Attributes:
        name: of the threshold, for example ``"difference.eq_t"``.
        variant: what it was applied to: a group, a condition.
        value: what was measured.
        threshold: what it is held against.
        status: ``"inconclusive"`` where the method's own error bar spans the threshold, or where
            this machine cannot show what the line is about.
        detail: the numbers behind it, in words.
    """

    name: str
    variant: str
    value: float
    threshold: float
    status: Status
    detail: str

    def to_dict(self) -> dict[str, Any]:
        content = asdict(self)
        return {k: str(v) if isinstance(v, float) and not math.isfinite(v) else v
                for k, v in content.items()}  # fmt: skip


def check(
    thresholds: Mapping[str, float],
    name: str,
    value: float,
    *,
    variant: str = "",
    detail: str = "",
    error_bar: float = 0.0,
) -> list[Check]:
    """Hold a value against the threshold of that name; no line where none is set.

    Args:
        error_bar: how far the value may be off by the method's own error.
    """
    if name not in thresholds:
        return []
    threshold = thresholds[name]
    if name in _FLOORS:
        status: Status = "pass" if value >= threshold else "fail"
    elif value <= threshold:
        status = "pass" if value + error_bar <= threshold else "inconclusive"
    else:
        status = "inconclusive" if value - error_bar <= threshold else "fail"
    return [Check(name, variant, value, threshold, status, detail)]


def untold(thresholds: Mapping[str, float], name: str, detail: str) -> list[Check]:
    """An inconclusive line on what this machine cannot show; no line where no threshold is set."""
    if name not in thresholds:
        return []
    return [Check(name, "", 0.0, thresholds[name], "inconclusive", detail)]


def is_floor(name: str) -> bool:
    """Whether a value must reach the threshold rather than stay below it."""
    return name in _FLOORS


def resolve_thresholds(
    preset: str = "export", file: Path | None = None, settings: Sequence[str] = ()
) -> Thresholds:
    """A preset, then a TOML file, then ``NAME=VALUE`` settings; later ones win.

    Args:
        preset: ``"export"`` or ``"quantized"``.
        file: TOML with tables ``[parity]``, ``[optimization]``, ``[batch]``, ``[repeat]``,
            ``[saturation]``, ``[derivative]``, ``[difference]`` and ``[value]``.
        settings: such as ``"parity.max_relative=1e-3"`` or ``"value.consistency=0.2"``.

    Raises:
        ValueError: an unknown name, or not a number.
        OSError: the file cannot be read.

    Example:
        >>> resolve_thresholds(settings=["difference.lee=0.05"])["difference.lee"]
        0.05
    """
    one_of("preset", preset, tuple(PRESETS))
    thresholds = dict(PRESETS[preset])
    for name, value in (_read(file) if file is not None else {}).items():
        thresholds[_known(name)] = _limit(name, value)
    for setting in settings:
        name, separator, value = setting.partition("=")
        if not separator:
            raise InvalidValueError(f"A threshold is set by NAME=VALUE; got {setting!r}.")
        thresholds[_known(name.strip())] = _limit(name, value)
    return thresholds


def _read(file: Path) -> dict[str, object]:
    try:
        tables = tomllib.loads(file.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidValueError(f"{file} is not readable TOML: {error}") from error
    flat: dict[str, object] = {}
    for table, content in tables.items():
        if not isinstance(content, Mapping):
            raise InvalidValueError(
                f"{file} must hold tables such as [parity]; got {table} = {content!r}."
            )
        flat |= {f"{table}.{name}": value for name, value in content.items()}
    return flat


def _known(name: str) -> str:
    if name not in EXPORT and name not in VALUES:
        raise InvalidValueError(
            f"There is no threshold {name!r}. Choose from {', '.join((*EXPORT, *VALUES))}."
        )
    return name


def _limit(name: str, value: object) -> float:
    try:
        if isinstance(value, bool) or not isinstance(value, SupportsFloat | str):
            raise InvalidTypeError
        limit = float(value)
    except (TypeError, ValueError):
        raise InvalidValueError(f"The threshold {name} must be a number; got {value!r}.") from None
    if not limit >= 0:
        raise InvalidValueError(f"The threshold {name} must not be negative; got {value}.")
    return limit
