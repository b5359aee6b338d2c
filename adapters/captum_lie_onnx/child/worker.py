"""onnxruntime behind two pipes: the child process that describes, loads and runs a file.

All that it imports, it imports here, before its memory is limited.
"""

from __future__ import annotations

import os
from typing import BinaryIO

from .describing import describe
from .memory import limit_memory
from .messages import Array, Header, pack, unpack
from .refused import Refused
from .session import Session


def answer(
    sessions: dict[str, Session], request: Header, arrays: list[Array]
) -> tuple[Header, list[Array]]:
    """What one request asks for."""
    verb = request["verb"]
    if verb == "describe":
        return {"description": describe(**request["arguments"])}, []
    if verb == "load":
        session = Session(**request["arguments"])
        sessions[request["session"]] = session
        return {"outputs": session.outputs}, []
    if verb == "run":
        session = sessions[request["session"]]
        return {}, session.run(request["input"], arrays[0], request["outputs"])
    raise ValueError(f"unknown verb {verb!r}")


def serve(memory: int, stdin: BinaryIO, stdout: BinaryIO) -> None:
    """Answer requests until the parent goes."""
    sessions: dict[str, Session] = {}

    def take(size: int) -> bytes:
        content = stdin.read(size) if size else b""
        if len(content) < size:
            raise EOFError
        return content

    limit_memory(memory)
    while True:
        try:
            request, arrays = unpack(take)
        except EOFError:
            return
        for piece in _reply(sessions, request, arrays):
            stdout.write(piece)
        stdout.flush()


def _reply(
    sessions: dict[str, Session], request: Header, arrays: list[Array]
) -> list[bytes | memoryview]:
    """The message that answers a request, or says why it cannot be answered."""
    try:
        return pack(*answer(sessions, request, arrays))
    except MemoryError:
        return pack({"error": "it needs more memory than allowed", "kind": "memory"}, [])
    except Refused as error:
        return pack({"error": str(error), "kind": "refused"}, [])
    except Exception as error:  # onnxruntime's own errors have no common type
        return pack({"error": f"{type(error).__name__}: {error}", "kind": "error"}, [])


def main(arguments: list[str]) -> None:
    """Serve on what are now standard input and output; nothing that prints may disturb it."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    silence = os.open(os.devnull, os.O_RDWR)
    os.dup2(silence, 0)
    os.dup2(silence, 1)
    serve(int(arguments[0]), requests, answers)
