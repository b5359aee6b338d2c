"""What an ONNX file is: hashes, operators, inputs; every check that needs no running."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from captum_lie_onnx.errors import OnnxModelError
from captum_lie_onnx.isolation import IsolatedSession
from captum_lie_onnx.limits import Limits


@dataclass(frozen=True)
class Identity:
    """What a file says it is.

    Attributes:
        file: its name.
        size: in bytes.
        sha256: of the file.
        external_data: SHA-256 of each file of external data, by location.
        ir_version, opset, producer: as the file declares them; ``opset`` by domain.
        domains: of the operators used.
        operators: how often each is used.
        quantisation: ``"none"``, ``"dynamic"``, ``"static (QDQ)"``, ``"static (QOperator)"`` or
            ``"weights only"``.
        precision: of the activations: ``"float32"``, ``"float16"`` or ``"int8"``.
        inputs, outputs: name, dtype and shape; symbolic or unknown dimensions are strings.
        dynamic_axes: by name of the input or output.
        metadata: the file's own properties.
    """

    file: str
    size: int
    sha256: str
    external_data: Mapping[str, str]
    ir_version: int
    opset: Mapping[str, int]
    producer: str
    domains: list[str]
    operators: Mapping[str, int]
    quantisation: str
    precision: str
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    dynamic_axes: Mapping[str, list[int]]
    metadata: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return asdict(self)


def inspect(path: Path | str, limits: Limits | None = None) -> Identity:
    """Identify an ONNX file, and refuse it if it is broken, hostile or takes no images.

    It is parsed in a child process with limits; this process only computes hashes.

    Raises:
        OnnxModelError: the file cannot be used, with the reason.

    Example:
        >>> inspect("model.txt")
        Traceback (most recent call last):
        captum_lie_onnx.errors.OnnxModelError: There is no model file model.txt.
    """
    path, limits = Path(path), limits or Limits()
    check_file(path, limits)
    with closing(IsolatedSession(path, limits)) as session:
        return identify(path, session.describe())


def identify(path: Path, description: Mapping[str, Any]) -> Identity:
    """What a file is, from what a session said of it, with the hashes that this process makes."""
    fields = dict(description)
    external = fields.pop("external_files")
    return Identity(
        file=path.name,
        size=path.stat().st_size,
        sha256=_sha256(path),
        external_data={location: _sha256(path.parent / location) for location in external},
        **fields,
    )


def check_file(path: Path, limits: Limits) -> None:
    """What can be told before opening it.

    Raises:
        OnnxModelError: no such file, or it is too large.
    """
    if not path.exists():
        raise OnnxModelError(f"There is no model file {path}.")
    if not path.is_file():
        raise OnnxModelError(f"{path} is no file: pass the .onnx file itself.")
    size = path.stat().st_size
    if not size:
        raise OnnxModelError(f"{path} is empty.")
    if size > limits.file_bytes:
        raise OnnxModelError(f"{path} has {size} bytes, more than the {limits.file_bytes} allowed.")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
