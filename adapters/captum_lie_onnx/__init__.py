"""ONNX for captum-lie: export, run, cross-check and audit models in onnxruntime on the CPU.

Needs the extra ``onnx``: ``pip install 'captum-lie[onnx]'``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from captum_lie_onnx.errors import OnnxModelError

if TYPE_CHECKING:
    from captum_lie_onnx.audit_record import AuditRecord
    from captum_lie_onnx.audit_report import AuditReport
    from captum_lie_onnx.auditing import audit
    from captum_lie_onnx.derivative import LieDerivativeModel
    from captum_lie_onnx.derivative_export import export_lie_derivative
    from captum_lie_onnx.exporting import export
    from captum_lie_onnx.inspection import Identity, inspect
    from captum_lie_onnx.limits import Limits
    from captum_lie_onnx.metadata import Preprocessing
    from captum_lie_onnx.quantisation import quantize
    from captum_lie_onnx.runtime import OnnxModel
    from captum_lie_onnx.thresholds import Check, resolve_thresholds

#: Imported when first used, so that the command line can list its commands without onnx.
_PLACES = {
    "AuditRecord": "audit_record",
    "AuditReport": "audit_report",
    "Check": "thresholds",
    "Identity": "inspection",
    "LieDerivativeModel": "derivative",
    "Limits": "limits",
    "OnnxModel": "runtime",
    "Preprocessing": "metadata",
    "audit": "auditing",
    "export": "exporting",
    "export_lie_derivative": "derivative_export",
    "inspect": "inspection",
    "quantize": "quantisation",
    "resolve_thresholds": "thresholds",
}

__all__ = [
    "AuditRecord",
    "AuditReport",
    "Check",
    "Identity",
    "LieDerivativeModel",
    "Limits",
    "OnnxModel",
    "OnnxModelError",
    "Preprocessing",
    "audit",
    "export",
    "export_lie_derivative",
    "inspect",
    "quantize",
    "resolve_thresholds",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
