"""An audit's record as JSON, CSV, JUnit XML and a web page."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from captum_lie_onnx.audit_record import AuditRecord
from captum_lie_onnx.junit import render_junit
from captum_lie_onnx.page import render_page


@dataclass(frozen=True, eq=False)
class AuditReport(AuditRecord):
    """The result of :func:`captum_lie_onnx.audit`: its record, and how to save it."""

    def save(self, folder: Path | str) -> list[Path]:
        """Write ``audit.html``, ``audit.json``, ``audit.csv`` and ``junit.xml`` into a folder.

        All are rendered, then all are written, before the first appears: a page that fails or a
        full disk leaves nothing, and what was there before stays.

        Raises:
            OSError: the folder cannot be written to, or the disk is full.
        """
        place = Path(folder)
        contents = {
            "audit.html": render_page(self),
            "audit.json": self.to_json(),
            "audit.csv": self.comparison.to_csv(index=False),
            "junit.xml": render_junit(self),
        }
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place, prefix=".audit-") as written:
            for name, content in contents.items():
                (Path(written) / name).write_text(content, encoding="utf-8", newline="")
            for name in contents:
                os.replace(Path(written) / name, place / name)
        return [place / name for name in contents]
