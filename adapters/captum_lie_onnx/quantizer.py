"""Quantise an ONNX file: a script that runs in a child process, on its own.

Usage: ``python quantizer.py SOURCE RESULT MODE MEMORY REDUCE_RANGE [CALIBRATION.npy]``, where
REDUCE_RANGE is 0 or 1. onnxruntime's quantiser parses the file, which may be hostile: the parent
only sees the exit status.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_BATCH = 8


def main(
    source: str, result: str, mode: str, memory: int, reduce_range: bool, calibration: str | None
) -> None:
    """Quantise ``source`` and carry its metadata over.

    Args:
        memory: bytes that this process may take beyond what it starts with.
        reduce_range: weights of 7 bits, whose products with unsigned bytes fit into 16.
        calibration: inputs of the graph ``[N, ...]``, for static quantisation.
    """
    import numpy as np
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_dynamic,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    _limit_memory(memory)
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        prepared = str(Path(folder) / "prepared.onnx")
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        if mode == "dynamic":
            # onnxruntime's integer convolution has no kernel for signed weights on the CPU.
            quantize_dynamic(
                prepared, result, weight_type=QuantType.QUInt8, reduce_range=reduce_range
            )
        else:
            assert calibration is not None
            inputs = np.load(calibration, allow_pickle=False)
            initialised = {t.name for t in onnx.load(prepared).graph.initializer}
            (name,) = (i.name for i in onnx.load(prepared).graph.input if i.name not in initialised)

            class Reader(CalibrationDataReader):  # type: ignore[misc]  # it has no types
                def __init__(self) -> None:
                    self.batches: Iterator[dict[str, Any]] = (
                        {name: inputs[i : i + _BATCH]} for i in range(0, len(inputs), _BATCH)
                    )

                def get_next(self) -> dict[str, Any] | None:
                    return next(self.batches, None)

            quantize_static(
                prepared,
                result,
                Reader(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                reduce_range=reduce_range,
            )
    model = onnx.load(result)
    known = {p.key for p in model.metadata_props}
    original = onnx.load(source, load_external_data=False)
    model.metadata_props.extend(p for p in original.metadata_props if p.key not in known)
    made = json.dumps({"mode": mode, "reduce_range": reduce_range})
    model.metadata_props.add(key="captum_lie.quantization", value=made)
    onnx.save(model, result)


def _limit_memory(size: int) -> None:
    """:func:`captum_lie_onnx.memory.limit_memory`, by file: the package is not imported."""
    place = Path(__file__).with_name("memory.py")
    spec = importlib.util.spec_from_file_location("memory", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.limit_memory(size)


if __name__ == "__main__":
    # Beside this script lie modules whose names others' imports may mean.
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).parent]
    SOURCE, RESULT, MODE, MEMORY, REDUCE, *REST = sys.argv[1:]
    main(SOURCE, RESULT, MODE, int(MEMORY), bool(int(REDUCE)), REST[0] if REST else None)
