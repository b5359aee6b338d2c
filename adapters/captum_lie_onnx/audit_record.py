"""What an audit found: verdicts, numbers, and what they were measured on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from captum_lie_onnx.behaviour import Behaviour
from captum_lie_onnx.errors import OnnxModelError
from captum_lie_onnx.parity import Parity
from captum_lie_onnx.thresholds import Check, Status

#: Version of the JSON; raised when a field changes its meaning or goes.
SCHEMA = "captum-lie-audit/1"


@dataclass(frozen=True, eq=False)
class AuditRecord:
    """What an audit found, apart from how it is shown.

    Attributes:
        checks: one verdict per line.
        comparison: every metric of the model beside the reference's, with paired differences.
        parity: how far the scores are from the reference's; None without one.
        candidate, reference: how the two behave.
        identity, reference_identity: what the files are; None for what is no file.
        settings: what was measured and how.
        notes: what had to be assumed, and signs that it was wrong.
        skipped: images that could not be read, with the reason.
        images: ``[N, C, H, W]``, for the pictures; None in a report that was read from a file.
    """

    checks: Sequence[Check]
    comparison: pd.DataFrame
    parity: Parity | None
    candidate: Behaviour
    reference: Behaviour | None
    identity: Mapping[str, Any] | None
    reference_identity: Mapping[str, Any] | None
    settings: Mapping[str, Any]
    notes: Sequence[str] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    images: Tensor | None = None

    @property
    def passed(self) -> bool:
        """No threshold is exceeded; inconclusive lines do not fail."""
        return not self.failures

    @property
    def failures(self) -> list[Check]:
        return [check for check in self.checks if check.status == "fail"]

    @property
    def exit_code(self) -> int:
        """0 if passed, 1 if a threshold is exceeded."""
        return 0 if self.passed else 1

    def count(self, status: Status) -> int:
        return sum(check.status == status for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """The report in plain types. Equal for equal audits, but for ``timestamp``."""
        return {
            "schema": SCHEMA,
            "timestamp": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "passed": self.passed,
            "settings": dict(self.settings),
            "identity": self.identity,
            "reference_identity": self.reference_identity,
            "notes": list(self.notes),
            "skipped_images": dict(self.skipped),
            "checks": [check.to_dict() for check in self.checks],
            "parity": None if self.parity is None else self.parity.to_dict(),
            "comparison": json.loads(
                self.comparison.to_json(orient="records", double_precision=15)
            ),
            "candidate": self.candidate.to_dict(),
            "reference": None if self.reference is None else self.reference.to_dict(),
        }

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=1, allow_nan=False)


def read_behaviour(path: Path) -> Behaviour:
    """How the model of a saved report (``audit.json``) behaved: a reference for later audits.

    Raises:
        OnnxModelError: no report of this schema.
        OSError: the file cannot be read.
    """
    try:
        content = json.loads(path.read_text())
        if content["schema"] != SCHEMA:
            raise OnnxModelError(
                f"{path} has schema {content['schema']!r}, this version reads {SCHEMA!r}: "
                "audit the reference again."
            )
        return Behaviour.from_dict(content["candidate"])
    except OnnxModelError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise OnnxModelError(
            f"{path} is no audit report ({type(error).__name__}: {error}). "
            "Pass the audit.json that an audit wrote."
        ) from error
