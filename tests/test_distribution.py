"""What is shipped stays small."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

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
