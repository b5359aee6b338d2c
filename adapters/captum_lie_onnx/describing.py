"""What an ONNX file says it is, and whether to open it; loads nothing but the file's own graph.

Runs in the child process, for which it must import neither torch nor the rest of the package.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

_DYNAMIC = {"DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM",
            "MatMulIntegerToFloat"}  # fmt: skip
_STATIC = {"QLinearConv", "QLinearMatMul", "QLinearAdd", "QLinearMul", "QGemm", "QAttention",
           "QLinearGlobalAveragePool", "QLinearSigmoid", "QLinearLeakyRelu"}  # fmt: skip
_WEIGHTS = {"DequantizeLinear", "MatMulNBits", "GatherBlockQuantized", "MatMulBnb4"}
_TYPES = {"float32", "float16", "float64", "uint8"}


class Refused(ValueError):
    """A file that will not be opened, and why."""


def describe(
    path: str, memory: int, file_bytes: int, domains: list[str], checked: bool = True
) -> dict[str, Any]:
    """Read a file's graph and refuse what is broken or hostile.

    Args:
        path: the file.
        memory: bytes that no tensor may exceed.
        file_bytes: largest size of the file with its external data.
        domains: operator domains to accept.
        checked: refuse; False only describes, for files that are trusted.

    Returns:
        What :class:`captum_lie_onnx.Identity` holds, but for the hashes.

    Raises:
        Refused: the file will not be opened.
    """
    file = Path(path)
    model = _parse(file)
    nodes = list(_nodes(model.graph))
    inner = [n for function in model.functions for node in function.node for n in _with_inner(node)]
    every = nodes + inner
    external = _external(model, every)
    if checked:
        if not model.graph.node:
            raise Refused("its graph is empty: there is nothing to run")
        _check_domains(model, every, domains)
        _check_external(file, external, file_bytes)
        _check_sizes(model, every, memory)
    inputs, outputs = _inputs(model.graph), [_value(v) for v in model.graph.output]
    _check_image_input(inputs, memory if checked else None)
    ops = Counter(node.op_type for node in every)
    quantisation = _quantisation(ops, every, model)
    found = {
        "ir_version": model.ir_version,
        "opset": {o.domain or "ai.onnx": o.version for o in model.opset_import},
        "producer": f"{model.producer_name} {model.producer_version}".strip(),
        "domains": sorted({node.domain or "ai.onnx" for node in every}, key=str),
        "operators": dict(sorted(ops.items(), key=str)),
        "quantisation": quantisation,
        "precision": _precision(quantisation, model, every),
        "inputs": inputs,
        "outputs": outputs,
        "dynamic_axes": {
            v["name"]: [i for i, d in enumerate(v["shape"]) if not isinstance(d, int)]
            for v in (*inputs, *outputs)
            if any(not isinstance(d, int) for d in v["shape"])
        },
        "metadata": {p.key: p.value for p in model.metadata_props},
        "external_files": sorted({location for _, location, _, _ in external}),
    }
    if _has_bytes(found):
        raise Refused("it is damaged: a name in it is no text (UTF-8)")
    return found


def _has_bytes(value: Any) -> bool:
    """Whether protobuf could not decode some text, which it then gives as bytes."""
    if isinstance(value, dict):
        return any(_has_bytes(v) for v in (*value, *value.values()))
    return any(map(_has_bytes, value)) if isinstance(value, list) else isinstance(value, bytes)


def _parse(file: Path) -> ModelProto:
    try:
        model = onnx.load(str(file), load_external_data=False)
    except MemoryError:
        raise
    except Exception as error:  # protobuf's own errors have no common type
        raise Refused(
            "it is truncated, nested too deeply or no ONNX file "
            f"({str(error).strip() or 'unreadable'})"
        ) from error
    if not model.ir_version or not model.HasField("graph"):
        raise Refused("it is no ONNX file: it holds no graph")
    return model


def _nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """All nodes, those of bodies of control flow included."""
    for node in graph.node:
        yield from _with_inner(node)


def _with_inner(node: NodeProto) -> Iterator[NodeProto]:
    yield node
    for attribute in node.attribute:
        for graph in _graphs(attribute):
            yield from _nodes(graph)


def _graphs(attribute: AttributeProto) -> list[GraphProto]:
    return ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs)


def _bodies(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for body in _graphs(attribute):
                yield from _bodies(body)


def _tensors(model: ModelProto, nodes: list[NodeProto]) -> Iterator[TensorProto]:
    """Every tensor that the file holds: initialisers, sparse ones, and attributes."""
    for graph in _bodies(model.graph):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _check_domains(model: ModelProto, nodes: list[NodeProto], allowed: list[str]) -> None:
    own = {(f.domain, f.name) for f in model.functions}
    for node in nodes:
        if node.domain not in allowed and (node.domain, node.op_type) not in own:
            raise Refused(
                f"it uses the operator {node.op_type} of the domain {node.domain!r}, which is not "
                f"a standard one; allow the domain by name if you trust it"
            )


def _external(
    model: ModelProto, nodes: list[NodeProto]
) -> list[tuple[TensorProto, str, int, int | None]]:
    """Tensors kept in other files: tensor, location, offset, length."""
    found = []
    for tensor in _tensors(model, nodes):
        if tensor.data_location == TensorProto.EXTERNAL:
            entries = {e.key: e.value for e in tensor.external_data}
            try:
                offset = int(entries.get("offset", 0))
                length = int(entries["length"]) if "length" in entries else None
            except ValueError as error:
                raise Refused(f"external data of {tensor.name!r} is misdescribed") from error
            found.append((tensor, entries.get("location", ""), offset, length))
    return found


def _check_external(
    file: Path, external: list[tuple[TensorProto, str, int, int | None]], file_bytes: int
) -> None:
    folder = file.resolve().parent
    total = file.stat().st_size
    for location in sorted({location for _, location, _, _ in external}):
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
    for tensor, location, offset, length in external:
        needed = size_of(tensor)
        size = (folder / location).stat().st_size
        if offset < 0 or (length is not None and length < needed) or offset + needed > size:
            raise Refused(
                f"its external data file {location!r} is too short: {tensor.name!r} needs {needed} "
                f"bytes from {offset}, the file has {size}"
            )


def size_of(tensor: TensorProto) -> int:
    """Bytes that a tensor declares by its dimensions and type."""
    if any(d < 0 for d in tensor.dims):
        raise Refused(f"the tensor {tensor.name!r} declares a negative size {list(tensor.dims)}")
    try:
        bits = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize * 8
    except (KeyError, TypeError, ValueError):
        bits = 8
    if tensor.data_type in (TensorProto.INT4, TensorProto.UINT4):
        bits = 4
    return int(-(-math.prod(tensor.dims) * bits // 8))


def _check_sizes(model: ModelProto, nodes: list[NodeProto], memory: int) -> None:
    for tensor in _tensors(model, nodes):
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
        at = {"ConstantOfShape": 0, "Expand": 1, "Reshape": 1}.get(node.op_type)
        shape = constants.get(node.input[at]) if at is not None and len(node.input) > at else None
        if shape is not None and node.op_type != "Reshape":
            needed = math.prod(max(int(d), 1) for d in shape)
            if needed > memory:
                raise Refused(
                    f"{node.op_type} makes a tensor of {needed} elements {shape}, more than the "
                    f"{memory} bytes allowed"
                )


def _small_constants(model: ModelProto, nodes: list[NodeProto]) -> dict[str, list[int]]:
    """Values of short integer tensors, by name: shapes that the file spells out."""
    named = [(t.name, t) for graph in _bodies(model.graph) for t in graph.initializer] + [
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


def _inputs(graph: GraphProto) -> list[dict[str, Any]]:
    """Inputs that a caller must give: older files list their weights among the inputs, too."""
    weights = {t.name for t in graph.initializer}
    return [_value(v) for v in graph.input if v.name not in weights]


def _value(value: Any) -> dict[str, Any]:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        return {"name": value.name, "dtype": kind or "unknown", "shape": []}
    tensor = value.type.tensor_type
    try:
        dtype = str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    except (KeyError, TypeError, ValueError):
        dtype = "unknown"
    # A negative size is how some exporters write that any will do, and onnxruntime takes it so.
    shape: list[int | str] = [
        d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else d.dim_param or "?"
        for d in tensor.shape.dim
    ]
    return {"name": value.name, "dtype": dtype, "shape": shape}


def _check_image_input(inputs: list[dict[str, Any]], memory: int | None) -> None:
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


def _quantisation(ops: Counter[str], nodes: list[NodeProto], model: ModelProto) -> str:
    if _DYNAMIC & ops.keys():
        return "dynamic"
    if _STATIC & ops.keys():
        return "static (QOperator)"
    if ops["QuantizeLinear"]:
        return "static (QDQ)"
    if _WEIGHTS & ops.keys():
        return "weights only"
    return "none"


def _precision(quantisation: str, model: ModelProto, nodes: list[NodeProto]) -> str:
    """Of the activations, as far as the file tells."""
    if quantisation.startswith(("dynamic", "static")):
        return "int8"
    types = {t.data_type for t in _tensors(model, nodes)}
    types |= {v.type.tensor_type.elem_type for v in model.graph.input}
    return "float16" if types & {TensorProto.FLOAT16, TensorProto.BFLOAT16} else "float32"
