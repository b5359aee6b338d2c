"""Parity of scores against hand-made numbers."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from captum_lie_onnx.parity import parity, top_classes


def test_differences_are_relative_to_the_largest_score() -> None:
    reference = np.array([[1.0, -4.0, 0.0], [2.0, 1.0, 0.5]])
    candidate = reference + np.array([[0.0, 0.0, 0.4], [0.0, -0.2, 0.0]])
    found = parity(candidate, reference)
    assert found.max_absolute == pytest.approx(0.4)
    assert found.max_relative == pytest.approx(0.1)
    assert found.mean_absolute == pytest.approx(0.1)
    assert found.per_image == pytest.approx([0.4, 0.2])
    every = np.abs(candidate - reference).reshape(-1)
    assert found.p99_absolute == pytest.approx(np.quantile(every, 0.99))


def test_agreement_of_first_classes() -> None:
    reference = np.array([[5, 4, 3, 2, 1, 0.0], [0, 1, 2, 3, 4, 5.0]])
    candidate = reference.copy()
    candidate[0, [0, 1]] = 4, 5  # another winner, the same five
    candidate[1, [0, 1]] = 1, 0  # the same winner, one of the five lost
    found = parity(candidate, reference)
    assert found.top1_agreement == 0.5
    assert found.top5_agreement == pytest.approx((1 + 0.8) / 2)


def test_few_classes_do_not_agree_for_want_of_choice() -> None:
    reference = np.array([[1.0, 0.0, -1.0]])
    assert parity(reference[:, ::-1].copy(), reference).top5_agreement == 0.5


def test_ties_go_by_class_number() -> None:
    assert top_classes(np.zeros((1, 4)), 2).tolist() == [[0, 1]]


def test_another_number_of_classes_is_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        parity(np.zeros((2, 3)), np.zeros((2, 4)))
