"""Export of ten timm families: parity, and metrics in onnxruntime beside PyTorch.

    python -m tests.onnx.families --families vision_transformer,convnext

Each family's smallest customary variant, with random weights, is exported at 224 x 224 pixels.
Printed are the largest difference of its scores relative to the largest score, whether consistency
is the same, and the largest relative difference of the mean-square metrics.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import captum_lie_timm
from captum_lie import metrics
from captum_lie.examples import load_images
from captum_lie_onnx import OnnxModel, export

MODELS = {
    "resnet": "resnet18",
    "convnext": "convnext_atto",
    "efficientnet": "efficientnet_b0",
    "mobilenetv3": "mobilenetv3_small_050",
    "regnet": "regnetx_002",
    "vision_transformer": "vit_tiny_patch16_224",
    "deit": "deit_tiny_distilled_patch16_224",
    "swin_transformer": "swin_tiny_patch4_window7_224",
    "mlp_mixer": "mixer_s32_224",
    "densenet": "densenet121",
}
MEAN_SQUARES = "eq_t,eq_t_frac,eq_r"


@dataclass(frozen=True)
class Found:
    """One line of the table; ``parity`` and ``metrics`` are relative differences."""

    family: str
    model: str
    seconds: float
    parity: float
    same_consistency: bool
    metrics: float

    def __str__(self) -> str:
        same = "identical" if self.same_consistency else "DIFFERS"
        return (
            f"{self.family:20} {self.model:34} {self.seconds:6.1f} s  parity {self.parity:8.1e}  "
            f"consistency {same}  metrics {self.metrics:8.1e}"
        )


def photographs(n: int = 3, size: int = 224) -> Tensor:
    return nn.functional.interpolate(load_images(n)[0], (size, size), mode="bicubic").clamp(0, 1)


def check(family: str, folder: Path) -> Found:
    """Export a family's model, and compare."""
    start = time.perf_counter()
    torch.manual_seed(0)
    model = captum_lie_timm.load(MODELS[family], pretrained=False)
    network: Any = model.model
    heads = network.get_classifier()
    for head in heads if isinstance(heads, tuple) else (heads,):
        nn.init.normal_(head.weight, std=0.05)  # some are born as zero
    images = photographs()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = export(model, images[:2], folder / f"{family}.onnx")
    with OnnxModel(path, threads=torch.get_num_threads()) as graph, torch.no_grad():
        expected, found = model(images), graph(images)
        parity = ((found - expected).abs().max() / expected.abs().max()).item()
        same = _value(graph, images, "consistency") == _value(model, images, "consistency")
        here = _value(graph, images, MEAN_SQUARES)
        there = _value(model, images, MEAN_SQUARES)
    relative = [abs(a - b) / b for a, b in zip(here, there, strict=True)]
    return Found(family, MODELS[family], time.perf_counter() - start, parity, same, max(relative))


def _value(model: Callable[[Tensor], Tensor], images: Tensor, names: str) -> list[float]:
    table = metrics.measure(model, images, names, n_samples=2, output_fn=None)
    return [float(value) for value in table.to_dataframe()["value"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--families", default=",".join(MODELS), help="separated by commas")
    for family in parser.parse_args().families.split(","):
        with tempfile.TemporaryDirectory() as folder:
            print(check(family, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
