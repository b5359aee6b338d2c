"""TCAV with LayerLieDerivative: which concepts does a layer's equivariance error point along?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from captum.attr import LayerActivation
from captum.concept import TCAV, Classifier, Concept
from torch import Tensor
from torch.utils.data import DataLoader

from captum_lie import LayerLieDerivative
from tests.toy_models import build, images

LAYERS = ["pool", "conv1"]
OPTIONS: Any = {"target": 1, "group": "rotation"}


class Ridge(Classifier):
    """One-against-the-rest ridge regression of ±1 on the activations, in closed form."""

    def __init__(self) -> None:
        self._weights, self._classes = torch.zeros(()), [0]

    def train_and_eval(self, dataloader: Any, **_: Any) -> None:
        batches = list(dataloader)
        features = torch.cat([f.flatten(1) for f, _ in batches])
        labels = torch.cat([y for _, y in batches])
        self._classes = sorted(set(labels.tolist()))
        self._weights = ridge(features, labels, self._classes)

    def weights(self) -> Tensor:
        return self._weights

    def classes(self) -> list[int]:
        return self._classes


def ridge(features: Tensor, labels: Tensor, classes: list[int]) -> Tensor:
    wanted = torch.stack([2.0 * (labels == c) - 1 for c in classes], 1)
    matrix = features.T @ features + torch.eye(features.shape[1])
    return torch.linalg.solve(matrix, features.T @ wanted).T


def pictures(kind: str) -> Tensor:
    """Six images with vertical or horizontal stripes, or of noise."""
    noise = images(6, dtype=torch.float32, seed=len(kind))
    stripes = torch.arange(12) % 4 < 2 if kind == "vertical" else (torch.arange(8) % 4 < 2)[:, None]
    return noise if kind == "noise" else 0.3 * noise + 0.7 * stripes


def concept(identifier: int, kind: str) -> Concept:
    shown: Any = pictures(kind)  # Captum takes any data set
    return Concept(identifier, kind, DataLoader(shown, batch_size=3))


def activations(model: Any, layer: str, kind: str) -> Tensor:
    found = LayerActivation(model, model.get_submodule(layer)).attribute(pictures(kind))
    assert isinstance(found, Tensor)
    return found.flatten(1)


@pytest.mark.parametrize("to_input", [False, True])
def test_scores_are_dot_products_with_the_concept_vectors(tmp_path: Path, to_input: bool) -> None:
    model = build("resnet", dtype=torch.float32)
    vertical, horizontal, noise = (
        concept(i, kind) for i, kind in ((7, "vertical"), (3, "horizontal"), (5, "noise"))
    )
    sets = [[vertical, noise], [horizontal, vertical, noise]]
    x = images(9, dtype=torch.float32, seed=4)
    tcav = TCAV(
        model,
        layers=LAYERS,
        classifier=Ridge(),
        layer_attr_method=LayerLieDerivative(model, None),
        attribute_to_layer_input=to_input,
        save_path=str(tmp_path),
    )
    scores: Any = tcav.interpret(x, sets, **OPTIONS)
    some_signs = []
    for concepts, key in zip(sets, ("7-5", "3-7-5"), strict=True):
        for layer in LAYERS:
            cav: Any = tcav.cavs[key][layer]
            weights = cav.stats["weights"]
            if not to_input:
                ids = sorted(c.id for c in concepts)
                names = {c.id: c.name for c in concepts}
                features = [activations(model, layer, names[i]) for i in ids]
                labels = torch.tensor(ids).repeat_interleave(6)
                torch.testing.assert_close(
                    weights, ridge(torch.cat(features), labels, ids), rtol=1e-3, atol=1e-4
                )
            attribution = LayerLieDerivative(model, layer).attribute(
                x, attribute_to_layer_input=to_input, **OPTIONS
            )
            rank = [sorted(c.id for c in concepts).index(c.id) for c in concepts]
            for column, row in enumerate(rank):
                products = [
                    sum((a * w).item() for a, w in zip(one.flatten(), weights[row], strict=True))
                    for one in attribution
                ]
                found = {name: value[column].item() for name, value in scores[key][layer].items()}
                positive = sum(p > 0 for p in products) / len(products)
                assert found["sign_count"] == pytest.approx(positive)
                assert found["magnitude"] == pytest.approx(sum(products) / 9, rel=1e-3, abs=1e-9)
                some_signs.append(positive)
    assert len(some_signs) == 10
    assert len(set(some_signs)) > 2
