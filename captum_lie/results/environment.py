"""Where a measurement was made: versions, machine and time."""

from __future__ import annotations

import datetime
import os
import platform
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version

import torch

#: Libraries whose versions may decide a number.
LIBRARIES = ("captum-lie", "torch", "captum", "numpy", "timm", "onnxruntime")


@dataclass(frozen=True)
class Environment:
    """Versions, machine and time of a measurement.

    Attributes:
        versions: of Python and the libraries that were installed.
        device: what the models ran on.
        machine: architecture and processor.
        threads: that PyTorch computed with.
        time: when it ended, UTC, ISO 8601.
    """

    versions: dict[str, str] = field(default_factory=dict)
    device: str = "cpu"
    machine: str = ""
    threads: int = 1
    time: str = ""

    @staticmethod
    def here(device: torch.device | str = "cpu") -> Environment:
        """This process's own.

        Example:
            >>> Environment.here().versions["torch"] == torch.__version__
            True
        """
        name = str(device)
        if name.startswith("cuda"):
            name += f" ({torch.cuda.get_device_name(device)})"
        return Environment(
            versions={"python": platform.python_version()} | _installed(),
            device=name,
            machine=f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
            threads=torch.get_num_threads(),
            time=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        )


def _installed() -> dict[str, str]:
    found = {}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found | {"torch": str(torch.__version__)}
