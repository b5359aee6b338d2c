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
    """A loaded file. Repeats are bitwise equal: threads and provider are explicit."""

    def __init__(self, path: str, threads: int, optimization: str) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        # Between two runs the cores belong to whoever makes the next images.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.graph_optimization_level = {
            "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
            "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
            "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
            "none": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
        }[optimization]
        self._path, self._threads = path, threads
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def reloaded(self, optimization: str) -> Session:
        """The same file with another optimisation of the graph."""
        return Session(self._path, self._threads, optimization)

    @property
    def outputs(self) -> list[str]:
        return [output.name for output in self._session.get_outputs()]

    def run(self, name: str, value: Array, outputs: list[str]) -> list[Array]:
        """The named outputs for one value of the named input."""
        found: list[Array] = self._session.run(outputs, {name: value})
        return found


def write(stream: BinaryIO, header: Header, arrays: list[Array]) -> None:
    """Send a header and arrays."""
    for piece in pack(header, arrays):
        stream.write(piece)
    stream.flush()


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


def limit_memory(size: int) -> None:
    """Let this process take so many bytes more; nothing where the platform has no such limit."""
    try:
        import resource
    except ImportError:
        return
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        taken = pages * resource.getpagesize()
    except OSError:
        taken = 2 * 2**30
    resource.setrlimit(resource.RLIMIT_AS, (taken + size, taken + size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def answer(
    state: dict[str, Any], request: Header, arrays: list[Array]
) -> tuple[Header, list[Array]]:
    """What one request asks for."""
    verb = request["verb"]
    if verb == "describe":
        return {"description": state["describe"](**request["arguments"])}, []
    if verb == "load":
        session = Session(**request["arguments"])
        state["sessions"][request["arguments"]["optimization"]] = session
        return {"outputs": session.outputs}, []
    if verb == "run":
        session = state["sessions"][request["optimization"]]
        return {}, session.run(request["input"], arrays[0], request["outputs"])
    raise ValueError(f"unknown verb {verb!r}")


def serve(memory: int, stdin: BinaryIO, stdout: BinaryIO) -> None:
    """Answer requests until the parent goes."""
    import onnx  # noqa: F401 - before memory is limited
    import onnxruntime  # noqa: F401

    spec = importlib.util.spec_from_file_location(
        "describing", Path(__file__).with_name("describing.py")
    )
    assert spec is not None
    assert spec.loader is not None
    describing = importlib.util.module_from_spec(spec)  # by file: not the package's __init__
    spec.loader.exec_module(describing)
    state: dict[str, Any] = {"describe": describing.describe, "sessions": {}}
    limit_memory(memory)
    while True:
        try:
            request, arrays = read(stdin)
        except EOFError:
            return
        try:
            header, found = answer(state, request, arrays)
        except MemoryError:
            header, found = {"error": "it needs more memory than allowed", "kind": "memory"}, []
        except Exception as error:
            refused = type(error).__name__ == "Refused"
            header, found = (
                {
                    "error": str(error) if refused else f"{type(error).__name__}: {error}",
                    "kind": "refused" if refused else "error",
                },
                [],
            )
        write(stdout, header, found)


def main() -> None:
    """Serve on what are now standard input and output; nothing that prints may disturb it."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    silence = os.open(os.devnull, os.O_RDWR)
    os.dup2(silence, 0)
    os.dup2(silence, 1)
    serve(int(sys.argv[1]), requests, answers)


if __name__ == "__main__":
    main()
