"""onnxruntime's quantiser in a child process: it parses the file, which may be hostile."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import (
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from .memory import limit_memory
from .messages import Array

_BATCH = 8


def main(arguments: list[str]) -> None:
    """Quantise a file and carry its metadata over.

    Args:
        arguments: source, result, mode, bytes of memory that this process may take beyond what it
            starts with, 1 for weights of 7 bits (whose products with unsigned bytes fit into 16)
            and 0 for 8, and for static quantisation a file of inputs ``[N, ...]`` to calibrate on.
    """
    source, result, mode, memory, reduce, *calibration = arguments
    limit_memory(int(memory))
    logging.disable(logging.WARNING)
    reduce_range = reduce == "1"
    with tempfile.TemporaryDirectory() as folder:
        prepared = str(Path(folder) / "prepared.onnx")
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        if mode == "dynamic":
            _transpose_weights(prepared)
            # onnxruntime's integer convolution has no kernel for signed weights on the CPU.
            quantize_dynamic(
                prepared, result, weight_type=QuantType.QUInt8, reduce_range=reduce_range
            )
        else:
            quantize_static(
                prepared,
                result,
                _Batches(_input_name(prepared), np.load(calibration[0], allow_pickle=False)),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                reduce_range=reduce_range,
            )
    _carry_metadata(source, result, {"mode": mode, "reduce_range": reduce_range})


class _Batches:
    """Inputs to calibrate on, a few at a time: an onnxruntime ``CalibrationDataReader``."""

    def __init__(self, name: str, inputs: Array) -> None:
        self._batches: Iterator[dict[str, Array]] = (
            {name: inputs[i : i + _BATCH]} for i in range(0, len(inputs), _BATCH)
        )

    def get_next(self) -> dict[str, Array] | None:
        return next(self._batches, None)


def _input_name(path: str) -> str:
    graph = onnx.load(path).graph
    initialised = {tensor.name for tensor in graph.initializer}
    (name,) = (value.name for value in graph.input if value.name not in initialised)
    return str(name)


def _transpose_weights(path: str) -> None:
    """Store the weights of linear layers as a matrix product takes them, in the file itself.

    The dynamic quantiser makes each ``Gemm`` a ``MatMul``. Older onnxruntimes transpose its weight
    under the weight's own name, which contradicts the shape that the exporter recorded for it, and
    spoils it for whatever else uses it.
    """
    model = onnx.load(path)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    transposed: dict[str, str] = {}
    for node in model.graph.node:
        if node.op_type != "Gemm" or node.input[1] not in weights:
            continue
        for attribute in node.attribute:
            if attribute.name == "transB" and attribute.i:
                attribute.i = 0
                name = node.input[1]
                if name not in transposed:
                    transposed[name] = f"{name}.transposed"
                    matrix = onnx.numpy_helper.to_array(weights[name]).T
                    model.graph.initializer.append(
                        onnx.numpy_helper.from_array(matrix, transposed[name])
                    )
                node.input[1] = transposed[name]
    onnx.save(model, path)


def _carry_metadata(source: str, result: str, made: dict[str, Any]) -> None:
    """Give the result the metadata of its source, and say how it was made."""
    model = onnx.load(result)
    known = {p.key for p in model.metadata_props}
    original = onnx.load(source, load_external_data=False)
    model.metadata_props.extend(p for p in original.metadata_props if p.key not in known)
    model.metadata_props.add(key="captum_lie.quantization", value=json.dumps(made))
    onnx.save(model, result)
