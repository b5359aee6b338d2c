"""Walking through an ONNX file's graph: nodes, tensors, and what lies in other files."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypedDict

import onnx
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
)

from .refused import Refused


@dataclass(frozen=True)
class ExternalTensor:
    """A tensor kept in another file.

    Attributes:
        tensor: its declaration.
        location: of the other file, relative to the model's folder.
        offset: where it begins, in bytes.
        length: in bytes, if the file says.
    """

    tensor: TensorProto
    location: str
    offset: int
    length: int | None


class Declared(TypedDict):
    """An input or output as the file declares it; sizes that may vary are strings."""

    name: str
    dtype: str
    shape: list[int | str]


def all_nodes(model: ModelProto) -> list[NodeProto]:
    """Every node: those of bodies of control flow, and of the file's own functions, included."""
    inner = [n for function in model.functions for node in function.node for n in _with_inner(node)]
    return [*_nodes(model.graph), *inner]


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


def bodies(graph: GraphProto) -> Iterator[GraphProto]:
    """A graph and those of its control flow."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for body in _graphs(attribute):
                yield from bodies(body)


def all_tensors(model: ModelProto, nodes: list[NodeProto]) -> Iterator[TensorProto]:
    """Every tensor that the file holds: initialisers, sparse ones, and attributes."""
    for graph in bodies(model.graph):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def external_tensors(model: ModelProto, nodes: list[NodeProto]) -> list[ExternalTensor]:
    """The tensors kept in other files.

    Raises:
        Refused: it is not said properly where.
    """
    external = []
    for tensor in all_tensors(model, nodes):
        if tensor.data_location == TensorProto.EXTERNAL:
            entries = {e.key: e.value for e in tensor.external_data}
            try:
                offset = int(entries.get("offset", 0))
                length = int(entries["length"]) if "length" in entries else None
            except ValueError as error:
                raise Refused(f"external data of {tensor.name!r} is misdescribed") from error
            external.append(ExternalTensor(tensor, entries.get("location", ""), offset, length))
    return external


def size_of(tensor: TensorProto) -> int:
    """Bytes that a tensor declares by its dimensions and type.

    Raises:
        Refused: a negative size.
    """
    if any(d < 0 for d in tensor.dims):
        raise Refused(f"the tensor {tensor.name!r} declares a negative size {list(tensor.dims)}")
    try:
        bits = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize * 8
    except (KeyError, TypeError, ValueError):
        bits = 8
    if tensor.data_type in (TensorProto.INT4, TensorProto.UINT4):
        bits = 4
    return int(-(-math.prod(tensor.dims) * bits // 8))


def declared(value: ValueInfoProto) -> Declared:
    """What an input or output is; one that is no tensor has no axes."""
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
