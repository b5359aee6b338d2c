"""onnxruntime behind two pipes: the child process that opens files which nobody vouches for.

As a script it serves requests: a header (4 bytes of length, then JSON) and raw array bytes, both
ways. It imports neither torch nor the rest of the package, so it starts fast and owns little. The
parent also uses its functions directly for files that are trusted.
"""

from __future__ import annotations

import importlib.util
import json
import os
import struct
import sys
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Header = dict[str, Any]

OPTIMIZATIONS = ("all", "extended", "basic", "none")

#: What onnxruntime calls the types of inputs and outputs.
DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
}


class Session:
    """A loaded file. Repeats are bitwise equal: threads and provider are explicit.

    Args:
        precise: add products of u8 and s8 exactly also on x86 without VNNI, where they else
            saturate (``session.x64quantprecision``); elsewhere it changes nothing.
    """

    def __init__(self, path: str, threads: int, optimization: str, precise: bool = False) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        # Between two runs the cores belong to whoever makes the next images.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.add_session_config_entry("session.x64quantprecision", str(int(precise)))
        options.graph_optimization_level = {
            "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
            "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
            "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
            "none": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
        }[optimization]
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
        found = [np.asarray(a) for a in self._session.run(outputs, {name: value})]
        for output, array in zip(outputs, found, strict=True):
            if array.dtype.kind not in "fiub":
                raise TypeError(f"the output {output!r} is no tensor of numbers")
        return found


def pack(header: Header, arrays: list[Array]) -> list[bytes | memoryview]:
    """A message in pieces, arrays uncopied where they are contiguous."""
    arrays = [np.ascontiguousarray(a) for a in arrays]
    about = [{"dtype": a.dtype.str, "shape": a.shape} for a in arrays]
    text = json.dumps({**header, "arrays": about}).encode()
    return [
        struct.pack("<I", len(text)),
        text,
        *(a.reshape(-1).view(np.uint8).data for a in arrays if a.size),
    ]


def read(stream: BinaryIO) -> tuple[Header, list[Array]]:
    """Receive a header and arrays; EOFError when the other side is gone."""
    size = stream.read(4)
    if len(size) < 4:
        raise EOFError
    header: Header = json.loads(stream.read(struct.unpack("<I", size)[0]))
    arrays = []
    for about in header.pop("arrays"):
        dtype = np.dtype(about["dtype"])
        count = int(np.prod(about["shape"], dtype=np.int64))
        content = stream.read(count * dtype.itemsize) if count else b""
        arrays.append(np.frombuffer(content, dtype).reshape(about["shape"]))
    return header, arrays


def answer(
    state: dict[str, Any], request: Header, arrays: list[Array]
) -> tuple[Header, list[Array]]:
    """What one request asks for."""
    verb = request["verb"]
    if verb == "describe":
        return {"description": state["describe"](**request["arguments"])}, []
    if verb == "load":
        session = Session(**request["arguments"])
        state["sessions"][request["session"]] = session
        return {"outputs": session.outputs}, []
    if verb == "run":
        session = state["sessions"][request["session"]]
        return {}, session.run(request["input"], arrays[0], request["outputs"])
    raise ValueError(f"unknown verb {verb!r}")


def serve(memory: int, stdin: BinaryIO, stdout: BinaryIO) -> None:
    """Answer requests until the parent goes."""
    import onnx  # noqa: F401 - before memory is limited
    import onnxruntime  # noqa: F401

    state: dict[str, Any] = {"describe": _beside("describing").describe, "sessions": {}}
    _beside("memory").limit_memory(memory)
    while True:
        try:
            request, arrays = read(stdin)
        except EOFError:
            return
        try:
            pieces = pack(*answer(state, request, arrays))
        except MemoryError:
            pieces = pack({"error": "it needs more memory than allowed", "kind": "memory"}, [])
        except Exception as error:
            refused = type(error).__name__ == "Refused"
            text = str(error) if refused else f"{type(error).__name__}: {error}"
            pieces = pack({"error": text, "kind": "refused" if refused else "error"}, [])
        for piece in pieces:
            stdout.write(piece)
        stdout.flush()


def _beside(name: str) -> Any:
    """A module beside this script, by file: the package's ``__init__`` is not run."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Serve on what are now standard input and output; nothing that prints may disturb it."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    silence = os.open(os.devnull, os.O_RDWR)
    os.dup2(silence, 0)
    os.dup2(silence, 1)
    serve(int(sys.argv[1]), requests, answers)


if __name__ == "__main__":
    main()
