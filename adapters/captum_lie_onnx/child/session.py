"""A file loaded by onnxruntime, for the CPU."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort

from .messages import Array

_LEVELS = {
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "none": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}


class Session:
    """A loaded file. Repeats are bitwise equal: threads and provider are explicit.

    Args:
        optimization: ``"all"``, ``"extended"``, ``"basic"`` or ``"none"``.
        precise: add products of u8 and s8 exactly also on x86 without VNNI, where they else
            saturate (``session.x64quantprecision``); elsewhere it changes nothing.
    """

    def __init__(self, path: str, threads: int, optimization: str, precise: bool = False) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        # Between two runs the cores belong to whoever makes the next images.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.add_session_config_entry("session.x64quantprecision", str(int(precise)))
        options.graph_optimization_level = _LEVELS[optimization]
        self._path, self._threads = path, threads
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def reloaded(self, optimization: str, precise: bool = False) -> Session:
        """The same file with another optimisation of the graph, or precise."""
        return Session(self._path, self._threads, optimization, precise)

    @property
    def outputs(self) -> list[str]:
        return [output.name for output in self._session.get_outputs()]

    def run(self, name: str, value: Array, outputs: list[str]) -> list[Array]:
        """The named outputs for one value of the named input."""
        arrays = [np.asarray(a) for a in self._session.run(outputs, {name: value})]
        for output, array in zip(outputs, arrays, strict=True):
            if array.dtype.kind not in "fiub":
                raise TypeError(f"the output {output!r} is no tensor of numbers")
        return arrays

    def close(self) -> None:
        """Nothing to end: it runs in this process."""
