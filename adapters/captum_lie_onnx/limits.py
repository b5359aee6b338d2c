"""How much an ONNX file that nobody vouches for may take."""

from __future__ import annotations

from dataclasses import dataclass

from captum_lie.errors import InvalidValueError

#: Operator domains that onnxruntime brings itself; no custom library is ever loaded.
STANDARD_DOMAINS: tuple[str, ...] = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")


@dataclass(frozen=True)
class Limits:
    """Limits on a file that runs in a child process.

    Attributes:
        memory: bytes that the process may take beyond what it starts with; no tensor may declare
            more.
        load_seconds: time for checking and loading the file.
        run_seconds: time for each call.
        total_seconds: time for all of that together; a file that stays just below the other limits
            would else take any time.
        file_bytes: size of the file with its external data.
        allowed_domains: operator domains to accept beside :data:`STANDARD_DOMAINS`.

    Raises:
        ValueError: a limit that is not positive.

    Example:
        >>> Limits(memory=2**30).load_seconds
        60
    """

    memory: int = 4 * 2**30
    load_seconds: float = 60
    run_seconds: float = 120
    total_seconds: float = 4 * 3600
    file_bytes: int = 8 * 2**30
    allowed_domains: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("memory", "load_seconds", "run_seconds", "total_seconds", "file_bytes"):
            if not getattr(self, name) > 0:
                raise InvalidValueError(
                    f"The limit {name} must be positive; got {getattr(self, name)}."
                )
