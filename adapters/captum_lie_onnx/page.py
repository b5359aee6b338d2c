"""The audit as one self-contained web page."""

from __future__ import annotations

from captum_lie.extending.pages import embed, render
from captum_lie_onnx.audit_record import AuditRecord
from captum_lie_onnx.cpu import Capabilities
from captum_lie_onnx.pictures import (
    plot_curves,
    plot_verdicts,
    plot_worst_reactions,
    plot_worst_scores,
)
from captum_lie_onnx.thresholds import is_floor


def render_page(report: AuditRecord) -> str:
    """The report as HTML, pictures within it; it loads nothing."""
    return render("audit.html.j2", package="captum_lie_onnx", **page_values(report))


def page_values(report: AuditRecord) -> dict[str, object]:
    """What the templates show."""
    scores, reactions = plot_worst_scores(report), plot_worst_reactions(report)
    return {
        "report": report,
        "cpu": Capabilities(**report.settings["cpu"]).describe(),
        "is_floor": is_floor,
        "number": lambda value: f"{value:.4g}",
        "verdicts": embed(plot_verdicts(list(report.checks))),
        "curves": embed(plot_curves(report.candidate, report.reference)),
        "worst_scores": embed(scores) if scores else None,
        "worst_reactions": embed(reactions) if reactions else None,
        "rows": report.comparison.to_dict("records"),
    }
