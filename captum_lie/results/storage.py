"""Results in files: one safetensors file holds the arrays, and the rest as JSON in its header."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import safetensors.torch
from safetensors import SafetensorError

from captum_lie.core.gram import PrincipalDirections
from captum_lie.errors import DamagedFileError, InvalidValueError
from captum_lie.layouts import Layout
from captum_lie.results.cell import Cell, Facts
from captum_lie.results.codec import Arrays, decode, encode, storable
from captum_lie.results.digits import DigitsRun, DigitsScore, DigitsStudy
from captum_lie.results.environment import Environment
from captum_lie.results.files import write_bytes_atomically
from captum_lie.results.layer_maps import LayerMap
from captum_lie.results.layerwise import LayerwiseResult
from captum_lie.results.lee import LeeResult
from captum_lie.results.measurement import SCHEMA_VERSION, Measurement
from captum_lie.results.metrics import MetricResult, MetricTable
from captum_lie.results.record import ModelRecord, Subject
from captum_lie.results.rows import Row
from captum_lie.results.sampled import SampledResult
from captum_lie.results.section import Section
from captum_lie.results.subnetworks import SubnetworkResult

R = TypeVar("R")

#: Under which the header holds everything but the arrays.
HEADER = "captum-lie"

for _kind in (
    Cell, DigitsRun, DigitsScore, DigitsStudy, Environment, Facts, LayerMap,
    LayerwiseResult, LeeResult, Measurement, MetricResult, ModelRecord, PrincipalDirections,
    Row, SampledResult, Section,
    Subject, SubnetworkResult,
):  # fmt: skip
    storable(_kind)
storable(
    Layout,
    lambda layout: {"content": layout.to_dict()},
    lambda content: Layout.from_dict(content),
)
storable(MetricTable, lambda table: {"results": list(table)})


def save(result: object, path: Path) -> Path:
    """Write a result, whole or not at all; equal results give equal files.

    Args:
        result: any record of :mod:`captum_lie.results`.
        path: the file; its folder must exist.

    Raises:
        TypeError: not a record that can be stored.
        OSError: the file cannot be written, or the disk is full; nothing is left behind.

    Example:
        >>> import torch
        >>> from tempfile import TemporaryDirectory
        >>> result = LeeResult(("rotation",), torch.rand(3, 1).double())
        >>> with TemporaryDirectory() as folder:
        ...     path = save(result, Path(folder) / "lee.safetensors")
        ...     again = load(path, LeeResult)
        >>> again.groups, torch.equal(again.lee, result.lee)
        (('rotation',), True)
    """
    arrays: Arrays = {}
    content = {"schema": SCHEMA_VERSION, "content": encode(result, arrays)}
    header = json.dumps(content, ensure_ascii=False, allow_nan=False)
    write_bytes_atomically(path, safetensors.torch.save(_apart(arrays), {HEADER: header}))
    return path


def load(path: Path, kind: type[R]) -> R:
    """Read what :func:`save` wrote.

    Args:
        kind: the class that is expected.

    Raises:
        FileNotFoundError: no such file.
        DamagedFileError: not such a file, cut off, or of a newer version.
        ValueError: it holds a result of another class.
    """
    tree, arrays = _read(path)
    if tree.get("schema", 0) > SCHEMA_VERSION:
        raise DamagedFileError(
            f"{path} has format {tree['schema']}, and this version reads up to {SCHEMA_VERSION}: "
            "install a newer captum-lie."
        )
    result = decode(tree.get("content"), arrays)
    if not isinstance(result, kind):
        raise InvalidValueError(f"{path} holds a {type(result).__name__}, not a {kind.__name__}.")
    return result


def _read(path: Path) -> tuple[dict[str, Any], Arrays]:
    if not path.is_file():
        raise FileNotFoundError(f"No results at {path}.")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(HEADER)
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        tree = json.loads(header or "null")
    except (SafetensorError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DamagedFileError(f"{path} is damaged or cut off: {error}.") from error
    if not isinstance(tree, dict):
        raise DamagedFileError(f"{path} was not written by captum-lie.")
    return tree, arrays


def _apart(arrays: Arrays) -> Arrays:
    """Arrays that share no memory, which the format refuses."""
    seen: set[int] = set()
    result: Arrays = {}
    for name, array in arrays.items():
        place = array.untyped_storage().data_ptr()
        whole = array.untyped_storage().nbytes() == array.numel() * array.element_size()
        result[name] = array if whole and place not in seen else array.clone()
        seen.add(place)
    return result
