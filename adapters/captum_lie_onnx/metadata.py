"""What an ONNX file says about itself: how its images are prepared, and what it was made from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast, get_args

from captum_lie.errors import InvalidTypeError, InvalidValueError
from captum_lie_onnx.errors import OnnxModelError

Layout = Literal["NCHW", "NHWC"]
Channels = Literal["RGB", "BGR"]

#: Before every key of ours in a file's ``metadata_props``.
PREFIX = "captum_lie."


@dataclass(frozen=True)
class Preprocessing:
    """What a graph's input is, relative to a plain RGB image in [0, 1], NCHW.

    Attributes:
        size: ``(height, width)`` expected, None: any.
        mean, std: for each channel; None: nothing to do outside the graph.
        layout: order of the input's axes.
        channels: order of the colours.
        included: the graph normalises by itself; ``mean`` and ``std`` then only inform.

    Raises:
        ValueError: sizes or standard deviations that are not positive, or an unknown order.

    Example:
        >>> Preprocessing((224, 224), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)).included
        True
    """

    size: tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    layout: Layout = "NCHW"
    channels: Channels = "RGB"
    included: bool = True

    def __post_init__(self) -> None:
        if self.size is not None and not (len(self.size) == 2 and min(self.size) > 0):
            raise InvalidValueError(f"size is (height, width), both positive; got {self.size!r}.")
        if (self.mean is None) != (self.std is None):
            raise InvalidValueError(
                f"Give mean and std both or neither; got {self.mean} and {self.std}."
            )
        if self.mean is not None and self.std is not None:
            if len(self.mean) != len(self.std) or not self.mean:
                raise InvalidValueError(
                    f"mean and std have one number per channel; got {self.mean} and {self.std}."
                )
            if not all(v > 0 for v in self.std):
                raise InvalidValueError(f"Standard deviations must be positive; got {self.std}.")
        if self.layout not in get_args(Layout):
            raise InvalidValueError(f"layout is one of {get_args(Layout)}; got {self.layout!r}.")
        if self.channels not in get_args(Channels):
            raise InvalidValueError(
                f"channels is one of {get_args(Channels)}; got {self.channels!r}."
            )


@dataclass(frozen=True)
class Metadata:
    """What an exported file says about itself.

    Attributes:
        preprocessing: of its input.
        num_classes: size of its output.
        source: the model it was made from.
        version: of captum-lie.
    """

    preprocessing: Preprocessing
    num_classes: int | None
    source: str
    version: str


def entries(metadata: Metadata, **others: object) -> dict[str, str]:
    """Metadata, and other values by key, as a file's ``metadata_props``."""
    values = {
        "preprocessing": asdict(metadata.preprocessing),
        "num_classes": metadata.num_classes,
        "source": metadata.source,
        "version": metadata.version,
        **others,
    }
    return {PREFIX + key: json.dumps(value) for key, value in values.items()}


def read(properties: Mapping[str, str]) -> Metadata | None:
    """Metadata from a file's ``metadata_props`` (onnxruntime: ``custom_metadata_map``).

    Returns:
        None if the file holds none of ours.

    Raises:
        OnnxModelError: it does, but they cannot be read.

    Example:
        >>> read({"author": "someone"}) is None
        True
    """
    values = {
        key: read_entry(properties, key)
        for key in ("preprocessing", "num_classes", "source", "version")
    }
    if all(value is None for value in values.values()):
        return None
    try:
        return Metadata(
            _preprocessing(values["preprocessing"]),
            _optional(int, values["num_classes"]),
            _a(str, values["source"]),
            _a(str, values["version"]),
        )
    except (TypeError, ValueError, OverflowError) as error:
        raise OnnxModelError(
            f"The file's metadata {PREFIX}* are malformed: {error} Export the model again."
        ) from error


def read_entry(properties: Mapping[str, str], key: str) -> Any:
    """The value under one of our keys, None if there is none.

    Raises:
        OnnxModelError: it is no JSON.
    """
    text = properties.get(PREFIX + key)
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise OnnxModelError(
            f"The file's metadata {PREFIX}{key} are malformed: {error}. Export the model again."
        ) from error


def _preprocessing(value: object) -> Preprocessing:
    fields = dict(_a(dict, value))
    size, mean, std = (_optional(list, fields.pop(k, None)) for k in ("size", "mean", "std"))
    height_width = None if size is None else tuple(_a(int, v) for v in size)
    layout, channels = _a(str, fields.pop("layout", "NCHW")), _a(str, fields.pop("channels", "RGB"))
    included = _a(bool, fields.pop("included", True))
    if fields:
        raise InvalidValueError(f"unknown entries {sorted(fields)}.")
    return Preprocessing(
        cast(tuple[int, int] | None, height_width),
        None if mean is None else tuple(float(v) for v in mean),
        None if std is None else tuple(float(v) for v in std),
        cast(Layout, layout),
        cast(Channels, channels),
        included,
    )


def _optional(kind: type, value: object) -> Any:
    return None if value is None else _a(kind, value)


def _a(kind: type, value: object) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise InvalidTypeError(f"{kind.__name__} expected, got {str(value)[:80]!r}.")
    return value
