"""What a graph's input and output are, kept in the ONNX file's own metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from captum_lie_onnx.errors import OnnxModelError

Layout = Literal["NCHW", "NHWC"]
Channels = Literal["RGB", "BGR"]

_KEY = "captum_lie.model"


@dataclass(frozen=True)
class Preprocessing:
    """What a graph's input is, relative to plain RGB images in [0, 1], NCHW.

    Attributes:
        size: ``(height, width)`` expected; None for any.
        mean, std: of each channel; None for no normalisation.
        layout: of the graph's input.
        channels: their order.
        included: the graph normalises by itself; mean and std then only inform.
    """

    size: tuple[int, int] | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    layout: Layout = "NCHW"
    channels: Channels = "RGB"
    included: bool = True


@dataclass(frozen=True)
class Metadata:
    """What :func:`captum_lie_onnx.export` writes into a file.

    Attributes:
        preprocessing: what the input is.
        num_classes: length of a row of scores.
        source: the model's name.
        version: of captum-lie.
    """

    preprocessing: Preprocessing
    num_classes: int | None
    source: str
    version: str


def write(model: Any, metadata: Metadata) -> None:
    """Put the metadata into an ``onnx.ModelProto``, in place of what was there."""
    kept = [p for p in model.metadata_props if p.key != _KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    entry = model.metadata_props.add()
    entry.key, entry.value = _KEY, json.dumps(asdict(metadata))


def read(properties: Mapping[str, str]) -> Metadata | None:
    """The metadata of a file, from its properties; None if it was not written by us.

    Raises:
        OnnxModelError: it is there, but malformed.
    """
    if _KEY not in properties:
        return None
    try:
        content = json.loads(properties[_KEY])
        about = content.pop("preprocessing")
        preprocessing = Preprocessing(
            **about
            | {k: _numbers(about[k]) for k in ("size", "mean", "std")}
        )
        if preprocessing.layout not in get_args(Layout) or preprocessing.channels not in get_args(
            Channels
        ):
            raise ValueError(f"{preprocessing.layout}, {preprocessing.channels}")
        return Metadata(preprocessing=preprocessing, **content)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise OnnxModelError(
            f"The file's metadata {_KEY!r} is malformed ({type(error).__name__}: {error})."
        ) from error


def _numbers(values: list[Any] | None) -> tuple[Any, ...] | None:
    return None if values is None else tuple(values)
