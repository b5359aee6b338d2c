"""What is imported only while a command runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from captum_lie.errors import InvalidValueError


@contextmanager
def extra() -> Iterator[None]:
    """Say how to get what is not installed.

    Raises:
        ValueError: a package of the extra ``onnx`` is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("onnx", "onnxruntime", "onnxscript"):
            raise
        raise InvalidValueError(
            f"This command needs {error.name}: pip install 'captum-lie[onnx]'"
        ) from error
