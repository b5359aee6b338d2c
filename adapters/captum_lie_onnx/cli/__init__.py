"""``captum-lie export`` and ``captum-lie audit``. Importing them needs no onnx: it is an extra."""

from captum_lie_onnx.cli.audit import audit_command
from captum_lie_onnx.cli.export import export_command

__all__ = ["audit_command", "export_command"]
