"""What functions take as keywords and the settings made of them are the same options."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

pytest.importorskip("onnxruntime")

from captum_lie_onnx.audit_settings import AuditOptions, AuditSettings
from captum_lie_onnx.exportable import ExportOptions, ExportSettings
from captum_lie_onnx.running import Running, RunOptions


@pytest.mark.parametrize(
    ("options", "settings"),
    [(AuditOptions, AuditSettings), (ExportOptions, ExportSettings), (RunOptions, Running)],
)
def test_keywords_are_the_settings_fields(options: Any, settings: Any) -> None:
    keywords = {name: kind.__forward_arg__ for name, kind in options.__annotations__.items()}
    assert keywords == {field.name: field.type for field in fields(settings)}
    assert not options.__required_keys__
    settings()  # each has a default
