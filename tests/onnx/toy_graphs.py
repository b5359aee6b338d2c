"""Small ONNX files, good and hostile, built node by node."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from captum_lie_onnx.metadata import Metadata, entries

Shape = Sequence[int | str | None]


def value(name: str, shape: Shape, dtype: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, dtype, shape)


def tensor(name: str, array: Any, dtype: Any = np.float32) -> Any:
    return numpy_helper.from_array(np.asarray(array, dtype=dtype), name)


def save(
    path: Path,
    nodes: Sequence[Any],
    *,
    inputs: Sequence[Any] | None = None,
    outputs: Sequence[Any] | None = None,
    initializers: Sequence[Any] = (),
    functions: Sequence[Any] = (),
    domains: Sequence[str] = (),
) -> Path:
    """Write a graph from ``images [batch, 3, 8, 8]`` to ``scores [batch, 3]`` without checks."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [value("images", ["batch", 3, 8, 8])] if inputs is None else inputs,
        [value("scores", ["batch", 3])] if outputs is None else outputs,
        list(initializers),
    )
    opsets = [helper.make_opsetid("", 20), *(helper.make_opsetid(d, 1) for d in domains)]
    model = helper.make_model(graph, opset_imports=opsets, functions=list(functions), ir_version=10)
    path.write_bytes(model.SerializeToString())
    return path


def means(source: str = "images", axes: Sequence[int] = (2, 3)) -> tuple[list[Any], list[Any]]:
    """Nodes and weights of the mean over pixels, as scores."""
    node = helper.make_node("ReduceMean", [source, "axes"], ["scores"], keepdims=0)
    return [node], [tensor("axes", axes, np.int64)]


def good(path: Path, **options: Any) -> Path:
    nodes, weights = means()
    return save(path, nodes, initializers=weights, **options)


def scaled(path: Path, dtype: int, shape: Shape, axes: Sequence[int]) -> Path:
    """Means of an input of any type and layout, as float32."""
    nodes, weights = means("cast", axes)
    cast = helper.make_node("Cast", ["images"], ["cast"], to=TensorProto.FLOAT)
    return save(path, [cast, *nodes], inputs=[value("images", shape, dtype)], initializers=weights)


def nested(levels: int) -> bytes:
    """An If within an If within ..., as bytes; libraries build it by recursion of their own."""

    def field(number: int, content: bytes) -> bytes:
        return _varint(number << 3 | 2) + _varint(len(content)) + content

    graph = b""
    for _ in range(levels):
        attribute = field(1, b"then_branch") + field(6, graph) + _varint(20 << 3) + _varint(5)
        node = field(1, b"c") + field(2, b"y") + field(4, b"If") + field(5, attribute)
        graph = field(1, node)
    return _varint(1 << 3) + _varint(10) + field(7, graph)


def _varint(number: int) -> bytes:
    found = b""
    while number > 127:
        found += bytes([number & 127 | 128])
        number >>= 7
    return found + bytes([number])


def doubling(path: Path, levels: int) -> Path:
    """Functions of which each calls the one before twice: 2^levels nodes once they are inlined."""
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    functions = []
    for k in range(levels):
        if k:
            body = [
                helper.make_node(f"f{k - 1}", ["x"], ["h"], domain="own"),
                helper.make_node(f"f{k - 1}", ["h"], ["y"], domain="own"),
            ]
        else:
            body = [helper.make_node("Neg", ["x"], ["y"])]
        functions.append(helper.make_function("own", f"f{k}", ["x"], ["y"], body, opsets))
    call = helper.make_node(f"f{levels - 1}", ["images"], ["moved"], domain="own")
    nodes, weights = means("moved")
    return save(path, [call, *nodes], initializers=weights, functions=functions, domains=["own"])


def external(path: Path, location: str, length: int | None = None, dims: int = 3) -> Path:
    """Scores plus a bias that lies in another file."""
    bias = TensorProto(name="bias", data_type=TensorProto.FLOAT, dims=[dims])
    bias.data_location = TensorProto.EXTERNAL
    entries = {"location": location} | ({} if length is None else {"length": str(length)})
    for key, content in entries.items():
        bias.external_data.add(key=key, value=content)
    nodes, weights = means()
    nodes[0].output[0] = "mean"
    add = helper.make_node("Add", ["mean", "bias"], ["scores"])
    return save(path, [*nodes, add], initializers=[*weights, bias])


def bomb(path: Path, shape: Sequence[int], *, computed: bool = False) -> Path:
    """A ConstantOfShape of any size, its shape spelled out or computed from the images."""
    nodes, weights = means()
    nodes[0].output[0] = "mean"
    size = "spelled"
    extra = []
    if computed:
        extra = [
            helper.make_node("Shape", ["images"], ["sizes"], start=0, end=1),
            helper.make_node("Mul", ["sizes", "spelled"], ["computed"]),
        ]
        size = "computed"
    extra += [
        helper.make_node("ConstantOfShape", [size], ["huge"]),
        helper.make_node("ReduceSum", ["huge"], ["sum"], keepdims=0),
        helper.make_node("Add", ["mean", "sum"], ["scores"]),
    ]
    return save(path, [*nodes, *extra], initializers=[*weights, tensor("spelled", shape, np.int64)])


def parsed(path: Path) -> Any:
    return onnx.load(str(path), load_external_data=False)


def network(path: Path) -> Path:
    """Convolution, ReLU and means; large enough weights that sums in 16 bits saturate."""
    rng = np.random.default_rng(0)
    nodes, weights = means("active")
    conv = helper.make_node("Conv", ["images", "w"], ["raw"], pads=[1, 1, 1, 1])
    relu = helper.make_node("Relu", ["raw"], ["active"])
    w = tensor("w", rng.normal(size=(3, 3, 3, 3)))
    return save(path, [conv, relu, *nodes], initializers=[*weights, w])


def add_metadata(model: Any, metadata: Metadata) -> None:
    """Put metadata into a model proto, in place of what is there under the same keys."""
    kept = {p.key: p.value for p in model.metadata_props}
    del model.metadata_props[:]
    for key, text in (kept | entries(metadata)).items():
        model.metadata_props.add(key=key, value=text)


def run(path: Path, images: Tensor, *outputs: str) -> list[Tensor]:
    """onnxruntime itself, without what is tested."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return [torch.from_numpy(a) for a in session.run(list(outputs), {"images": images.numpy()})]


def fill_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports fail half-way through their file."""

    def save(_program: object, destination: Path, **_: object) -> None:
        Path(destination).write_bytes(b"half of")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch.onnx.ONNXProgram, "save", save)
