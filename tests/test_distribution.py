"""What is shipped stays small."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path

import pytest

from captum_lie._compat import tomllib

ROOT = Path(__file__).parents[1]


def test_the_wheel_stays_under_two_megabytes() -> None:
    """The packages, compressed as in a wheel; no weights, no photographs but the embedded crops."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    packages = build["targets"]["wheel"]["packages"]
    assert {"captum_lie", "adapters/captum_lie_timm"} <= set(packages)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as wheel:
        for package in packages:
            for path in sorted((ROOT / package).rglob("*")):
                if path.is_file() and "__pycache__" not in path.parts:
                    wheel.write(path)
    assert 500_000 < len(buffer.getvalue()) < 2_000_000


def test_the_citation_names_what_it_cites() -> None:
    yaml = pytest.importorskip("yaml")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["cff-version"] == "1.2.0"
    assert (citation["title"], citation["license"]) == (project["name"], project["license"])
    assert [a["name"] for a in citation["authors"]] == [a["name"] for a in project["authors"]]
    assert "version" not in citation  # it is said once, in pyproject.toml


def test_the_changelog_is_in_the_common_form() -> None:
    headings = re.findall(r"^#+ .*", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert headings[:2] == ["# Changelog", "## Unreleased"]
    kinds = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
    for heading in headings[2:]:
        released = re.fullmatch(r"## \[?\d+\.\d+\.\d+\]? - \d{4}-\d\d-\d\d", heading)
        assert released or heading.removeprefix("### ") in kinds, heading
