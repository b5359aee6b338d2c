"""Dynamic int8 of linear layers, whose weights the quantiser transposes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from captum_lie.examples import load_images
from captum_lie_onnx import OnnxModel, export
from captum_lie_onnx.quantisation import quantize

IMAGES = load_images(8)[0]


class Tied(nn.Module):
    """A classifier that applies one square linear layer twice."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.tied, self.head = nn.Linear(48, 16), nn.Linear(16, 16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(nn.functional.adaptive_avg_pool2d(x, 4).flatten(1))
        return self.head(self.tied(self.tied(x).relu()).relu())


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(Tied().eval(), IMAGES[:2], tmp_path_factory.mktemp("tied") / "tied.onnx")


def test_a_weight_that_two_layers_share_serves_both(path: Path, tmp_path: Path) -> None:
    expected = OnnxModel(path)(IMAGES)
    found = OnnxModel(quantize(path, tmp_path / "int8.onnx", "dynamic"))(IMAGES)
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()


def test_shared_weights_are_stored_once(path: Path, tmp_path: Path) -> None:
    graph = onnx.load(str(quantize(path, tmp_path / "int8.onnx", "dynamic"))).graph
    matrices = sorted(tuple(t.dims) for t in graph.initializer if len(t.dims) == 2)
    assert matrices == [(16, 5), (16, 16), (48, 16)]
