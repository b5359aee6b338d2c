"""Numbers that a change of structure must not change, written to ``recorded.json``.

    python -m tests.numbers.record [CASE ...]

measures all cases, or those whose names begin so, and writes what it found. Run it only where a
number is meant to change, and say so in the changelog.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from math import isfinite
from pathlib import Path

from captum_lie.examples import MODEL_NAMES
from tests.numbers import exact, finite, layers, special
from tests.numbers.families import Families
from tests.numbers.subjects import MAKERS, TIMM, Subject, subject

Case = Callable[[], Families]
FILE = Path(__file__).with_name("recorded.json")

#: Largest relative change.
RELATIVE = 1e-6
#: Share of the largest number of a family below which a change is rounding: members are differences
#: of numbers of its size, which double precision knows to 1e-16 each, and sums of many of them.
ROUNDING = 1e-12


def _of(name: str, measure: Callable[[Subject], Families]) -> Case:
    return lambda: measure(subject(name))


def _cases() -> dict[str, Case]:
    everywhere = {
        "lee": exact.lee,
        "scores": exact.scores,
        "gram": exact.gram,
        "attributions": exact.attributions,
        "aligned": layers.aligned,
        "target": layers.target,
        "subnetworks": layers.subnetworks,
        "metrics": finite.suite,
    }
    found = {f"{name}, {what}": _of(name, f) for name in MAKERS for what, f in everywhere.items()}
    for name in ("vit", "mixer"):
        found[f"{name}, finite differences"] = _of(name, finite.finite_differences)
    for name in MODEL_NAMES:
        found[f"{name}, norm"] = _of(name, partial(layers.norm, method="exact, reverse mode"))
    for name in ("cnn", "cnn_blur", "vit"):
        found[f"{name}, sampled layers"] = _of(name, layers.sampled)
    shifts = partial(layers.sampled, metrics=("eq_t", "eq_t_frac"))  # rotations are slow
    for name in ("mixer", *TIMM):
        found[f"{name}, sampled layers"] = _of(name, shifts)
    forward = partial(layers.norm, method="exact, forward mode")
    probed = partial(layers.norm, method="random signs", n_probes=12)
    wide = special.many_outputs
    found |= {
        "cnn, lee l1": _of("cnn", partial(exact.lee, norm="l1")),
        "cnn, borders": _of("cnn", finite.borders),
        "cnn, sampled layers masked": _of(
            "cnn", partial(layers.sampled, masked=True, border="circular")
        ),
        "many outputs, lee": lambda: exact.lee(wide("mixer")),
        "many outputs, norm": lambda: forward(wide("cnn")),
        "many outputs, norm probed": lambda: probed(wide("cnn")),
        "dense outputs": special.dense_outputs,
        "aliasing": special.aliasing,
    }
    return found


#: Every case by name, which begins with that of its subject.
CASES: dict[str, Case] = _cases()


def needs_timm(case: str) -> bool:
    """Whether a case is about one of timm's models."""
    return case.partition(",")[0] in TIMM


def recorded() -> dict[str, Families]:
    """What the file holds: numbers by case, family and name."""
    content: dict[str, Families] = json.loads(FILE.read_text())
    return content


def differences(found: Families, kept: Families, relative: float = RELATIVE) -> list[str]:
    """The numbers that differ, or that only one side has, in words.

    >>> differences({"lee": {"scale": 1.0}}, {"lee": {"scale": 1.0 + 1e-9}})
    []
    >>> differences({"lee": {"scale": 1.0}}, {"lee": {"scale": 1.1}})
    ['lee, scale: 1.0, recorded 1.1 (-1.0e-01)']
    """
    problems = []
    for family in found.keys() | kept.keys():
        ours, theirs = found.get(family, {}), kept.get(family, {})
        floor = ROUNDING * max(map(abs, theirs.values()), default=0)
        for name in ours.keys() | theirs.keys():
            new, old = ours.get(name), theirs.get(name)
            if new is None or old is None or not isfinite(new):
                problems.append(f"{family}, {name}: {new}, recorded {old}")
            elif abs(new - old) > max(relative * abs(old), floor):
                problems.append(f"{family}, {name}: {new}, recorded {old} ({new - old:+.1e})")
    return sorted(problems)


def main(*beginnings: str) -> None:
    """Measure and write; cases that are not asked for stay as they are."""
    kept = recorded() if beginnings else {}
    for case, measure in CASES.items():
        if not beginnings or case.startswith(beginnings):
            print(case, flush=True)
            kept[case] = measure()
    FILE.write_text(json.dumps(kept, indent=1, sort_keys=True, allow_nan=False) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
