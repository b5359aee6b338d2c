"""A child process that opens an ONNX file in the parent's stead, with limits on memory and time."""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import time
import weakref
from pathlib import Path
from typing import Any

from captum_lie_onnx.child.messages import Array, Header, pack, unpack
from captum_lie_onnx.child.run import command
from captum_lie_onnx.errors import OnnxModelError
from captum_lie_onnx.limits import STANDARD_DOMAINS, Limits

_CHUNK = 1 << 20


class IsolatedSession:
    """A file opened in a child process; the parent never parses it.

    Args:
        path: the ONNX file.
        limits: on memory and time.

    Raises:
        OnnxModelError: the file is refused, broken, or too slow to load.
    """

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path, self.limits = path, limits
        self._spent = 0.0
        self._process = subprocess.Popen(
            command("worker", str(limits.memory)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._closing = weakref.finalize(self, _end, self._process)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin.fileno(), self._process.stdout.fileno()
        for pipe in (self._to, self._from):
            os.set_blocking(pipe, False)

    def describe(self) -> dict[str, Any]:
        """What the file says it is, after every check that can be made without loading it."""
        arguments = {
            "path": str(self.path),
            "memory": self.limits.memory,
            "file_bytes": self.limits.file_bytes,
            "domains": [*STANDARD_DOMAINS, *self.limits.allowed_domains],
        }
        header, _ = self._ask(
            {"verb": "describe", "arguments": arguments}, self.limits.load_seconds
        )
        description: dict[str, Any] = header["description"]
        return description

    def load(self, threads: int, optimization: str) -> list[str]:
        """Load the file for running; names of its outputs."""
        self._threads = threads
        return self._load("first", optimization)

    def _load(self, session: str, optimization: str, precise: bool = False) -> list[str]:
        arguments = {
            "path": str(self.path),
            "threads": self._threads,
            "optimization": optimization,
            "precise": precise,
        }
        request: Header = {"verb": "load", "session": session, "arguments": arguments}
        header, _ = self._ask(request, self.limits.load_seconds)
        outputs: list[str] = header["outputs"]
        return outputs

    def reloaded(self, optimization: str, precise: bool = False) -> IsolatedVariant:
        """The file with another optimisation of the graph, or precise (see
        :class:`captum_lie_onnx.child.session.Session`), in the same process and its limits."""
        session = f"{optimization} precise" if precise else optimization
        self._load(session, optimization, precise)
        return IsolatedVariant(self, session)

    def run(
        self, name: str, value: Array, outputs: list[str], session: str = "first"
    ) -> list[Array]:
        """The named outputs for one value of the named input."""
        request: Header = {"verb": "run", "input": name, "outputs": outputs, "session": session}
        return self._ask(request, self.limits.run_seconds, [value])[1]

    def close(self) -> None:
        """End the child process."""
        self._closing()

    def _ask(
        self, request: Header, seconds: float, arrays: list[Array] | None = None
    ) -> tuple[Header, list[Array]]:
        """The child's answer to a request, within so many seconds."""
        verb = request["verb"]
        if not self._closing.alive:
            raise OnnxModelError(f"The process that ran {self.path} has ended: open it again.")
        began = time.monotonic()
        left = self.limits.total_seconds - self._spent
        deadline = began + min(seconds, left)
        try:
            self._send(pack(request, arrays or []), deadline)
            header, answered = self._receive(deadline)
        except TimeoutError:
            self.close()
            total = f"{self.limits.total_seconds:g} s allowed in all"
            raise OnnxModelError(
                f"{self.path}: {_DOING[verb]} took more than the "
                f"{total if left < seconds else f'{seconds:g} s allowed'}. "
                "Raise the limit if you trust the file."
            ) from None
        except (EOFError, BrokenPipeError, ConnectionError):
            self.close()
            raise OnnxModelError(
                f"{self.path}: the process that opened it died while {_DOING[verb]} "
                f"({_status(self._process)}): it needs more memory than the "
                f"{self.limits.memory / 2**30:.3g} GiB allowed, or it is broken."
            ) from None
        except BaseException:
            self.close()  # half a message may lie in the pipes
            raise
        finally:
            self._spent += time.monotonic() - began
        if "error" in header:
            raise OnnxModelError(_explained(self.path, verb, header, self.limits))
        return header, answered

    def _send(self, pieces: list[bytes | memoryview], deadline: float) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._to, selectors.EVENT_WRITE)
            for piece in pieces:
                rest = memoryview(piece)
                while rest:
                    _wait(selector, deadline)
                    rest = rest[os.write(self._to, rest[:_CHUNK]) :]

    def _receive(self, deadline: float) -> tuple[Header, list[Array]]:
        with selectors.DefaultSelector() as selector:
            selector.register(self._from, selectors.EVENT_READ)

            def take(size: int) -> bytearray:
                content = bytearray(size)
                view, done = memoryview(content), 0
                while done < size:
                    _wait(selector, deadline)
                    read = os.readv(self._from, [view[done : done + _CHUNK]])
                    if not read:
                        raise EOFError
                    done += read
                return content

            return unpack(take)


class IsolatedVariant:
    """A file loaded once more in a child process; it ends with the first."""

    def __init__(self, process: IsolatedSession, session: str) -> None:
        self._process, self._session = process, session

    def reloaded(self, optimization: str, precise: bool = False) -> IsolatedVariant:
        """See :meth:`IsolatedSession.reloaded`."""
        return self._process.reloaded(optimization, precise)

    def run(self, name: str, value: Array, outputs: list[str]) -> list[Array]:
        """See :meth:`IsolatedSession.run`."""
        return self._process.run(name, value, outputs, self._session)

    def close(self) -> None:
        """See :meth:`IsolatedSession.close`."""
        self._process.close()


_DOING = {"describe": "reading it", "load": "loading it", "run": "running it"}


def _wait(selector: selectors.BaseSelector, deadline: float) -> None:
    if not selector.select(max(0.0, deadline - time.monotonic())):
        raise TimeoutError


def _explained(path: Path, verb: str, header: Header, limits: Limits) -> str:
    reason = header["error"].strip().splitlines()[0]
    low = reason.lower()
    if header["kind"] == "memory" or "bad_alloc" in low or "allocate memory" in low:
        return (
            f"{path}: {_DOING[verb]} needs more memory than the {limits.memory / 2**30:.3g} GiB "
            f"allowed ({reason}). Raise the limit if you trust the file."
        )
    if header["kind"] == "refused":
        return f"{path} cannot be used: {reason}."
    return f"onnxruntime failed {_DOING[verb]}, {path}: {reason}"


def _status(process: subprocess.Popen[bytes]) -> str:
    code = process.poll()
    if code is None:
        return "no exit status"
    return f"signal {-code}" if code < 0 else f"exit status {code}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process, close its pipes, leave no zombie."""
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    process.wait()
