"""What this adapter adds to ``captum-lie demo``: trained ImageNet models on real photographs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from captum_lie.extending.commands import notes
from captum_lie.extending.pages import (
    Section,
    depth_figure,
    embed,
    lee_values,
    picture_of,
    render,
    smoothed,
    write_atomically,
)
from captum_lie.extending.studies import (
    UNTRAINED,
    Picture,
    find_photographs,
    first_examples,
    first_images,
    measure,
    prepare,
)
from captum_lie.groups import get_groups
from captum_lie.images import ImageFiles
from captum_lie.layerwise import LayerwiseEquivarianceError
from captum_lie.models import load_model
from captum_lie.plotting import plot_lee
from captum_lie.preprocessing import Normalized
from captum_lie_timm import imagenet

#: Models beside their untrained twins; the larger sizes take two and three times as long.
MODELS = ("efficientnet_lite0",)

#: Photographs, and the groups whose attribution maps are drawn of the first.
PHOTOGRAPHS = ("chelsea", "coffee", "astronaut", "camera", "motorcycle_left", "rocket")
DRAWN = ("translation_x", "translation_y", "rotation", "scale", "shear_y", "brightness")

#: Backward passes of the control: the fewest, for time.
PROBES = 4

#: Decomposed over the modules, on so many of the photographs.
LAYER_GROUP, LAYERED = "translation_x", 2


def section(out: Path) -> Section | None:
    """A leading section, and ``imagenet.csv``; None where weights or photographs are missing."""
    known = find_photographs()
    models = [name for name in MODELS if imagenet.PREFIX + name in imagenet.available()]
    if not models or not set(PHOTOGRAPHS) <= known.keys():
        missing = "scikit-image's photographs" if models else imagenet.WEIGHTS[MODELS[0]].package
        notes.print(
            "Install 'captum-lie[imagenet]' to see trained ImageNet models, too "
            f"(missing: {missing}).",
            markup=False,
            soft_wrap=True,
        )
        return None
    return _measured(out, models, {name: known[name] for name in PHOTOGRAPHS})


def _measured(out: Path, names: list[str], photographs: Mapping[str, Path]) -> Section:
    models: dict[str, Normalized] = {}
    for name in names:
        for suffix, trained in (("", True), (UNTRAINED, False)):
            model = load_model(imagenet.PREFIX + name, pretrained=trained)
            assert isinstance(model, Normalized)
            models[name + suffix] = model
    batches, subjects = prepare(models, ImageFiles(list(photographs.values())))
    result = measure(
        models, batches, get_groups("all"), pictured=1, n_probes=PROBES, show_progress=True
    )
    result.subjects = subjects
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "imagenet.csv", result.table.to_csv(index=False))
    layers = LayerwiseEquivarianceError(models[names[0]]).attribute(
        torch.stack(first_examples(batches[names[0]], LAYERED)), LAYER_GROUP
    )
    (picture,) = result.pictures
    drawn = {name: {g: maps[g] for g in DRAWN} for name, maps in picture.maps.items()}
    html = render(
        "imagenet.html.j2",
        package="captum_lie_timm",
        **lee_values(result),
        n=len(photographs),
        photographs=[name.replace("_", " ") for name in photographs],
        shown=next(iter(photographs)),
        answers={name: _answers(models[name], first_images(batches[name])) for name in names},
        relative=embed(plot_lee(result.table, relative=True)),
        maps=embed(picture_of(Picture(picture.images, drawn))),
        sigmas=smoothed(result.pictures),
        layered=names[0],
        layer_group=LAYER_GROUP.replace("_", " "),
        n_layered=LAYERED,
        depth=embed(depth_figure({names[0]: [layers]}, LAYER_GROUP)),
    )
    return Section("Trained ImageNet models on photographs", html, leading=True)


def _answers(model: Normalized, images: Tensor) -> list[str]:
    """What a model calls each image, with its probability."""
    assert model.classes is not None
    with torch.no_grad():
        best = model(images).softmax(1).max(1)
    return [
        f"{model.classes[k].split(',')[0]} ({p:.0%})"
        for p, k in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]
