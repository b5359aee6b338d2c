"""Ten timm families give the same numbers in onnxruntime as in PyTorch."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("timm")

from tests.onnx.families import MODELS, check


@pytest.mark.slow
@pytest.mark.parametrize("family", MODELS)
def test_scores_and_metrics_are_those_of_pytorch(family: str, tmp_path: Path) -> None:
    found = check(family, tmp_path)
    assert found.parity < 1e-4
    assert found.same_consistency
    assert found.metrics < 1e-4
