"""An audit in a terminal: how the file behaves, and the verdicts."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from captum_lie.extending.commands import notes
from captum_lie.metrics import MetricResult
from captum_lie_onnx.audit_record import AuditRecord
from captum_lie_onnx.behaviour import Behaviour
from captum_lie_onnx.comparison import RATES
from captum_lie_onnx.cpu import Capabilities

_COLOURS = {"pass": "green", "fail": "red", "inconclusive": "yellow"}
#: What is shown of the curves: all of it is in the files.
_SIZES = ("1 px", "4 px", "5 °", "15 °")


def print_report(report: AuditRecord) -> None:
    """How the file behaves, with and without a reference, then every line and the verdict."""
    console = Console()
    console.print(_behaviour_table(report))
    console.print()
    console.print(_verdict_table(report))
    verdict = "Passed" if report.passed else "Failed"
    console.print(
        f"{verdict}: {report.count('pass')} lines pass, {report.count('fail')} fail, "
        f"{report.count('inconclusive')} are inconclusive.",
        style="green" if report.passed else "red",
    )
    cpu = Capabilities(**report.settings["cpu"])
    console.print(f"Run on {cpu.describe()}.", markup=False, highlight=False, soft_wrap=True)
    if report.skipped:
        names = ", ".join(report.skipped)
        notes.print(f"{len(report.skipped)} unreadable images were left out: {names}",
                    style="yellow", markup=False, soft_wrap=True)  # fmt: skip


def _behaviour_table(report: AuditRecord) -> Table:
    behaviours = [b for b in (report.candidate, report.reference) if b is not None]
    table = Table(
        title=f"How {report.candidate.name} behaves on {len(report.candidate.outputs)} images: "
        "LEE, and answers that change",
        title_justify="left",
        box=None,
        caption="* The method's own error is more than a tenth of it: see the report."
        if any(_coarse(r) for b in behaviours for r in b.lee)
        else None,
        caption_justify="left",
    )
    table.add_column("", no_wrap=True)
    for behaviour in behaviours:
        table.add_column(behaviour.name, justify="right", overflow="fold", min_width=13)
    rows = [_shown(behaviour) for behaviour in behaviours]
    for label in rows[0]:
        table.add_row(label, *(_cell(row[label]) if label in row else "" for row in rows))
    return table


def _shown(behaviour: Behaviour) -> dict[str, MetricResult]:
    """LEE, consistency and some points of the curves, by what they are called."""
    rows = {f"LEE, {r.variant.replace('_', ' ')}": r for r in behaviour.lee}
    rows |= {
        f"random shifts ({r.metric}, {r.variant})": r
        for r in behaviour.metrics
        if r.metric == "consistency"
    }
    for r in behaviour.curves:
        if r.variant in _SIZES:
            motion = "shift" if r.metric == "changed_by_shift" else "rotation"
            rows[f"{motion} by {r.variant.replace(' °', '°')}"] = r
    return rows


def _cell(result: MetricResult) -> str:
    """Value and standard error; a star where the method's own error is not small beside them."""
    if result.metric in RATES:  # shown in per cent
        return f"{100 * result.value:.1f} ± {100 * result.stderr:.1f} %"
    return f"{result.value:.3g} ± {result.stderr:.1g}{' *' if _coarse(result) else ''}"


def _coarse(result: MetricResult) -> bool:
    return (result.error_bar or 0.0) > 0.1 * abs(result.value)


def _verdict_table(report: AuditRecord) -> Table:
    table = Table(title=f"Audit of {report.candidate.name}", title_justify="left", box=None)
    for text in ("line", "of"):
        table.add_column(text)
    for number in ("value", "threshold"):
        table.add_column(number, justify="right")
    table.add_column("verdict")
    for c in report.checks:
        table.add_row(
            c.name,
            c.variant.replace("_", " "),
            f"{c.value:.3g}",
            f"{c.threshold:.3g}",
            f"[{_COLOURS[c.status]}]{c.status}",
        )
    return table
