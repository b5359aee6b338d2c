"""The recorded numbers, measured again."""

from __future__ import annotations

from typing import Any

import pytest
import torch.nn.functional as F
from torch import Tensor, nn

from tests.numbers.families import Families
from tests.numbers.record import CASES, differences, needs_timm, recorded
from tests.numbers.subjects import TIMM, subject

RECORDED = recorded()
#: What is measured of timm's models even where slow tests are left out.
QUICK = ("lee", "target")


def marks(case: str) -> list[pytest.MarkDecorator]:
    quick = not needs_timm(case) or case.endswith(QUICK)
    return [] if quick else [pytest.mark.slow]


@pytest.mark.parametrize("case", [pytest.param(case, marks=marks(case)) for case in CASES])
def test_numbers_are_those_recorded(case: str) -> None:
    if needs_timm(case):
        pytest.importorskip("timm")
    assert differences(CASES[case](), RECORDED[case]) == []


def test_every_case_is_recorded_and_no_other() -> None:
    assert RECORDED.keys() == CASES.keys()


def test_a_family_without_a_number_that_moved_or_went_is_told() -> None:
    kept: Families = {"lee": {"rotation": 2.0, "scale": 1e-9, "nothing": 0.0}}
    rounded: Families = {"lee": {"rotation": 2.0 + 1e-6, "scale": 1e-9 + 1e-12, "nothing": 1e-13}}
    assert differences(rounded, kept) == []
    moved: Families = {"lee": {"rotation": 2.0 + 3e-6, "scale": 1.01e-9, "nothing": 1e-11}}
    assert len(differences(moved, kept)) == 3
    missing: Families = {"lee": {"rotation": 2.0, "scale": 1e-9}}
    assert len(differences(missing, kept)) == 1
    assert len(differences(kept, missing)) == 1
    assert len(differences({}, kept)) == 3
    assert len(differences({"lee": kept["lee"] | {"rotation": float("nan")}}, kept)) == 1


def distance_to_kinks(module: nn.Module, x: Tensor) -> float:
    """Smallest |x| of a ReLU, and smallest lead of a positive maximum over the next in its window.

    All zeros is no such tie: it is exact on every machine, and the first of them wins.
    """
    if isinstance(module, nn.ReLU):
        return float(x.abs().min())
    if isinstance(module, nn.MaxPool2d):
        options = vars(module)
        padded = F.pad(x, (options["padding"],) * 4, value=-1.0)
        size, stride = options["kernel_size"], options["stride"]
        windows = padded.unfold(2, size, stride).unfold(3, size, stride)
        first, second = windows.flatten(-2).topk(2).values.unbind(-1)
        return float((first - second)[first > 0].min())
    return float("inf")


@pytest.mark.parametrize("name", ["cnn", "cnn_blur", "resnet18"])
def test_no_kink_is_so_near_that_rounding_decides(name: str) -> None:
    if name in TIMM:
        pytest.importorskip("timm")
    measured = subject(name)
    found: list[float] = []

    def look(module: nn.Module, args: Any) -> None:
        found.append(distance_to_kinks(module, args[0].detach().clone()))

    for module in measured.model.modules():
        module.register_forward_pre_hook(look)
    measured.model(measured.images)
    assert 1e-9 < min(found) < 1e-3
