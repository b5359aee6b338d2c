"""Numbers of models and functions that are no subjects: dense outputs, many outputs, Theorem 1."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
from torch import nn

from captum_lie import GROUP_NAMES, LocalEquivarianceError, aliasing_error, metrics
from tests.numbers.families import Families, digest, named
from tests.numbers.finite import by_metric
from tests.numbers.subjects import Subject, closed_form, embedded, fill, waves


def many_outputs(name: str, outputs: int = 64) -> Subject:
    """An embedded model whose scores are mixed into so many that probes and forward mode pay."""
    subject = embedded(name)
    mixed = nn.Linear(8, outputs).double()
    with torch.no_grad():
        mixed.weight.copy_(closed_form(outputs, 8, seed=1))
        mixed.bias.copy_(closed_form(outputs, seed=2))
    model = nn.Sequential(subject.model, mixed).eval()
    modules = ("", *(f"0.{name}" for name in subject.modules if name), "1")
    return replace(subject, model=model, modules=modules, layer=f"0.{subject.layer}")


def dense_outputs() -> Families:
    """A smooth convolutional network from images to maps of half their size, which should move."""
    layers = nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1),
        nn.GELU(),
        nn.Conv2d(6, 2, 3, padding=1),
    )
    model = fill(layers.double()).eval()
    images = waves(2, 24, 32)
    method = LocalEquivarianceError(model, output_fn=None, output_layout="image")
    dense: dict[str, Any] = {"output_fn": None, "output_layout": "image"}
    eq: dict[str, Any] = {"border": "circular", "n_samples": 3, "seed": 3, **dense}
    return {
        "score": named(GROUP_NAMES, method.score(images).mean(0)),
        "gram": digest(method.gram(images)),
        **by_metric(
            [
                metrics.eq_t(model, images, **eq),
                metrics.eq_t_frac(model, images, **eq),
                metrics.eq_r(model, images, **eq),
                *metrics.group_sample_error(model, images, n_samples=3, seed=3, **dense),
                *metrics.discrete_group_error(model, images, **dense),
                *metrics.finite_difference_lee(model, images, **dense),
            ]
        ),
    }


def aliasing() -> Families:
    """Theorem 1 in closed form, along both axes."""
    images = waves(2, 24, 32) ** 2
    axes: tuple[Literal["x", "y"], ...] = ("x", "y")
    return {
        f"stride {stride}": {
            f"{axis} {i}": error
            for axis in axes
            for i, error in enumerate(aliasing_error(images, stride, axis).tolist())
        }
        for stride in (2, 4)
    }
