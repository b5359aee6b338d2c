"""What a CPU can do for int8 arithmetic, as far as the system tells."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_X86 = ("x86_64", "amd64", "i386", "i686", "x86")


@dataclass(frozen=True)
class Capabilities:
    """A CPU's instructions for integers; None where the system does not tell.

    Attributes:
        architecture: such as ``"x86_64"`` or ``"aarch64"``.
        model: its name, or ``"unknown"``.
        avx2, avx512: vector instructions of x86.
        vnni: products of unsigned and signed bytes summed in 32 bits: AVX512-VNNI or AVX-VNNI.
        amx_int8: the same for tiles.

    Example:
        >>> Capabilities("x86_64", "old", avx2=True, avx512=False, vnni=False, amx_int8=False)
        Capabilities(architecture='x86_64', model='old', avx2=True, avx512=False, vnni=False, \
amx_int8=False)
    """

    architecture: str
    model: str = "unknown"
    avx2: bool | None = None
    avx512: bool | None = None
    vnni: bool | None = None
    amx_int8: bool | None = None

    @property
    def saturates(self) -> bool | None:
        """Whether onnxruntime adds products of u8 and s8 in 16 bits here, where they may not fit.

        It does on x86 without VNNI, unless ``session.x64quantprecision`` is set (onnxruntime,
        "Quantize ONNX models": "When and why do I need to try U8U8?"). None: not known.
        """
        if self.architecture.lower() not in _X86:
            return False
        return None if self.vnni is None else not self.vnni

    def describe(self) -> str:
        """In a few words.

        Example:
            >>> Capabilities("x86_64", "some CPU").describe()
            'some CPU (x86_64, instructions unknown)'
        """
        known = {"AVX2": self.avx2, "AVX512": self.avx512, "VNNI": self.vnni, "AMX": self.amx_int8}
        if self.architecture.lower() not in _X86:
            return f"{self.model} ({self.architecture})"
        if None in known.values():
            return f"{self.model} ({self.architecture}, instructions unknown)"
        has = " ".join(name for name, value in known.items() if value)
        lacks = " ".join(name for name, value in known.items() if not value)
        words = [self.architecture, has, f"no {lacks}" if lacks else ""]
        return f"{self.model} ({', '.join(w for w in words if w)})"

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return asdict(self)


def this_cpu() -> Capabilities:
    """The CPU that runs this, from ``/proc/cpuinfo``, or where there is none what Python knows."""
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        text = ""
    return read_capabilities(platform.machine(), text, platform.processor())


def read_capabilities(architecture: str, cpuinfo: str, name: str = "") -> Capabilities:
    """Capabilities from the text of ``/proc/cpuinfo``.

    Args:
        cpuinfo: the text, of any number of processors; empty where there is none.
        name: of the CPU, where the text holds none.

    Example:
        >>> text = "model name : some CPU\\nflags : fpu avx2 avx512f avx512_vnni\\n"
        >>> read_capabilities("x86_64", text).saturates
        False
    """
    entries: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        entries.setdefault(key.strip(), value.strip())
    model = entries.get("model name") or name or "unknown"
    if architecture.lower() not in _X86:
        return Capabilities(architecture, model, False, False, False, False)
    if "flags" not in entries:
        return Capabilities(architecture, model)
    flags = set(entries["flags"].split())
    return Capabilities(
        architecture,
        model,
        avx2="avx2" in flags,
        avx512="avx512f" in flags,
        vnni=not flags.isdisjoint(("avx512_vnni", "avx_vnni")),
        amx_int8="amx_int8" in flags,
    )
