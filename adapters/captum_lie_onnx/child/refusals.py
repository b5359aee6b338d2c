"""Every check that refuses what is broken or hostile, before anything is loaded.

Each raises :class:`Refused`.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto

from .graph import Declared, ExternalTensor, all_tensors, bodies, size_of
from .refused import Refused

_TYPES = {"float32", "float16", "float64", "uint8"}


def check_domains(model: ModelProto, nodes: list[NodeProto], allowed: list[str]) -> None:
    """Every operator is a standard one, one of the file's own functions, or of a domain allowed."""
    own = {(f.domain, f.name) for f in model.functions}
    for node in nodes:
        if node.domain not in allowed and (node.domain, node.op_type) not in own:
            raise Refused(
                f"it uses the operator {node.op_type} of the domain {node.domain!r}, which is not "
                f"a standard one; allow the domain by name if you trust it"
            )


def check_external(file: Path, external: list[ExternalTensor], file_bytes: int) -> None:
    """Data in other files is there, long enough, within the model's folder, and not too much."""
    folder = file.resolve().parent
    total = file.stat().st_size
    for location in sorted({e.location for e in external}):
        place = Path(os.path.realpath(folder / location))
        if not location or Path(location).is_absolute() or not place.is_relative_to(folder):
            raise Refused(f"its external data lies outside the model's folder: {location!r}")
        if not place.is_file():
            raise Refused(f"its external data file {location!r} is missing beside it")
        total += place.stat().st_size
    if total > file_bytes:
        raise Refused(
            f"with its external data it has {total} bytes, more than the {file_bytes} allowed"
        )
    for e in external:
        needed = size_of(e.tensor)
        size = (folder / e.location).stat().st_size
        if e.offset < 0 or (e.length is not None and e.length < needed) or e.offset + needed > size:
            raise Refused(
                f"its external data file {e.location!r} is too short: {e.tensor.name!r} needs "
                f"{needed} bytes from {e.offset}, the file has {size}"
            )


def check_sizes(model: ModelProto, nodes: list[NodeProto], memory: int) -> None:
    """No tensor that the file holds or spells out is larger than the memory allowed."""
    for tensor in all_tensors(model, nodes):
        needed = size_of(tensor)
        if needed > memory:
            raise Refused(
                f"the tensor {tensor.name!r} declares {needed} bytes {list(tensor.dims)}, more "
                f"than the {memory} allowed"
            )
        if tensor.HasField("raw_data") and len(tensor.raw_data) < needed:
            raise Refused(
                f"the tensor {tensor.name!r} declares {needed} bytes but holds "
                f"{len(tensor.raw_data)}"
            )
    constants = _small_constants(model, nodes)
    for node in nodes:
        at = {"ConstantOfShape": 0, "Expand": 1}.get(node.op_type)
        shape = constants.get(node.input[at]) if at is not None and len(node.input) > at else None
        if shape is not None:
            needed = math.prod(max(int(d), 1) for d in shape)
            if needed > memory:
                raise Refused(
                    f"{node.op_type} makes a tensor of {needed} elements {shape}, more than the "
                    f"{memory} bytes allowed"
                )


def _small_constants(model: ModelProto, nodes: list[NodeProto]) -> dict[str, list[int]]:
    """Values of short integer tensors, by name: shapes that the file spells out."""
    named = [(t.name, t) for graph in bodies(model.graph) for t in graph.initializer] + [
        (node.output[0], a.t)
        for node in nodes
        if node.op_type == "Constant" and node.output
        for a in node.attribute
        if a.name == "value"
    ]
    return {
        name: [int(v) for v in onnx.numpy_helper.to_array(t).reshape(-1)]
        for name, t in named
        if t.data_type == TensorProto.INT64
        and t.data_location != TensorProto.EXTERNAL
        and math.prod(t.dims) <= 16
    }


def check_image_input(inputs: list[Declared], memory: int | None) -> None:
    """There is one input, it takes image batches, and one batch fits into the memory allowed."""
    if len(inputs) != 1:
        names = ", ".join(f"{v['name']} {v['dtype']} {v['shape']}" for v in inputs) or "none"
        raise Refused(f"it must have exactly one input, images; it has {len(inputs)}: {names}")
    (value,) = inputs
    if value["dtype"] not in _TYPES:
        raise Refused(
            f"its input {value['name']!r} must take images as float or uint8; it takes "
            f"{value['dtype']}"
        )
    if len(value["shape"]) != 4:
        raise Refused(
            f"its input {value['name']!r} must take image batches of rank 4; it declares "
            f"{value['shape']}"
        )
    if 0 in value["shape"]:
        raise Refused(f"its input {value['name']!r} declares {value['shape']}, which no image has")
    sizes = [d for d in value["shape"] if isinstance(d, int)]
    needed = math.prod(sizes) * np.dtype(value["dtype"]).itemsize
    if memory is not None and needed > memory:
        raise Refused(
            f"its input {value['name']!r} declares {value['shape']}, {needed} bytes a batch, more "
            f"than the {memory} allowed"
        )
