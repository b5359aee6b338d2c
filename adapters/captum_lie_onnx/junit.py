"""JUnit XML: every line of an audit as a test case, for continuous integration."""

from __future__ import annotations

from xml.etree import ElementTree

from captum_lie_onnx.audit_record import AuditRecord
from captum_lie_onnx.thresholds import Check, is_floor


def render_junit(report: AuditRecord) -> str:
    """A test suite per table of thresholds, a case per check; inconclusive ones are skipped."""
    root = ElementTree.Element("testsuites", name="captum-lie audit")
    suites: dict[str, list[Check]] = {}
    for check in report.checks:
        suites.setdefault(check.name.partition(".")[0], []).append(check)
    for name, checks in suites.items():
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=f"{report.candidate.name}: {name}",
            tests=str(len(checks)),
            failures=str(sum(c.status == "fail" for c in checks)),
            errors="0",
            skipped=str(sum(c.status == "inconclusive" for c in checks)),
        )
        for check in checks:
            case = ElementTree.SubElement(
                suite,
                "testcase",
                classname=check.name,
                name=check.variant or check.name.partition(".")[2],
            )
            if check.status == "fail":
                ElementTree.SubElement(case, "failure", message=_message(check)).text = check.detail
            elif check.status == "inconclusive":
                ElementTree.SubElement(case, "skipped", message=_message(check))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _message(check: Check) -> str:
    bound = "at least" if is_floor(check.name) else "at most"
    return f"{check.value:.4g}, should be {bound} {check.threshold:.4g}"
