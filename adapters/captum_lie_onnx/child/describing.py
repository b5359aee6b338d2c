"""What an ONNX file says it is, and whether to open it; loads nothing but the file's own graph."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from .graph import Declared, all_nodes, all_tensors, declared, external_tensors
from .refusals import check_domains, check_external, check_image_input, check_sizes
from .refused import Refused

_DYNAMIC = {"DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM",
            "MatMulIntegerToFloat"}  # fmt: skip
_STATIC = {"QLinearConv", "QLinearMatMul", "QLinearAdd", "QLinearMul", "QGemm", "QAttention",
           "QLinearGlobalAveragePool", "QLinearSigmoid", "QLinearLeakyRelu"}  # fmt: skip
_WEIGHTS = {"DequantizeLinear", "MatMulNBits", "GatherBlockQuantized", "MatMulBnb4"}


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
    nodes = all_nodes(model)
    external = external_tensors(model, nodes)
    if checked:
        if not model.graph.node:
            raise Refused("its graph is empty: there is nothing to run")
        check_domains(model, nodes, domains)
        check_external(file, external, file_bytes)
        check_sizes(model, nodes, memory)
    inputs, outputs = _inputs(model.graph), [declared(v) for v in model.graph.output]
    check_image_input(inputs, memory if checked else None)
    ops = Counter(node.op_type for node in nodes)
    quantisation = _quantisation(ops)
    description = {
        "ir_version": model.ir_version,
        "opset": {o.domain or "ai.onnx": o.version for o in model.opset_import},
        "producer": f"{model.producer_name} {model.producer_version}".strip(),
        "domains": sorted({node.domain or "ai.onnx" for node in nodes}, key=str),
        "operators": dict(sorted(ops.items(), key=str)),
        "quantisation": quantisation,
        "precision": _precision(quantisation, model, nodes),
        "inputs": inputs,
        "outputs": outputs,
        "dynamic_axes": {
            v["name"]: [i for i, d in enumerate(v["shape"]) if not isinstance(d, int)]
            for v in (*inputs, *outputs)
            if any(not isinstance(d, int) for d in v["shape"])
        },
        "metadata": {p.key: p.value for p in model.metadata_props},
        "external_files": sorted({e.location for e in external}),
    }
    if _has_bytes(description):
        raise Refused("it is damaged: a name in it is no text (UTF-8)")
    return description


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


def _inputs(graph: GraphProto) -> list[Declared]:
    """Inputs that a caller must give: older files list their weights among the inputs, too."""
    weights = {t.name for t in graph.initializer}
    return [declared(v) for v in graph.input if v.name not in weights]


def _quantisation(ops: Counter[str]) -> str:
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
    types = {t.data_type for t in all_tensors(model, nodes)}
    types |= {v.type.tensor_type.elem_type for v in model.graph.input}
    return "float16" if types & {TensorProto.FLOAT16, TensorProto.BFLOAT16} else "float32"
