"""What this adapter adds to ``captum-lie demo``: trained ImageNet models on real photographs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from captum_lie.extending.commands import notes
from captum_lie.extending.pages import (
    depth_figure,
    embed,
    lee_values,
    pictures_of,
    render,
    smoothed,
    write_atomically,
)
from captum_lie.extending.studies import (
    ModelSpec,
    Options,
    Plan,
    candidates_from,
    carry_out,
    find_photographs,
    first_images,
    prepare,
)
from captum_lie.groups import get_groups
from captum_lie.images import ImageFiles
from captum_lie.layerwise import LayerwiseEquivarianceError
from captum_lie.plotting import plot_lee
from captum_lie.results import Section
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
    specs = [ModelSpec(name, imagenet.PREFIX + name) for name in names]
    candidates = candidates_from(specs, control=True)
    source = ImageFiles(list(photographs.values()))
    plan = Plan(get_groups("all"), options=Options(n_probes=PROBES, pictured=1, show_progress=True))
    result = carry_out(plan, candidates, source, torch.device("cpu"))
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "imagenet.csv", result.table.to_csv(index=False))
    models = {c.name: c.model for c in candidates}
    batches, _ = prepare(candidates, source)
    layers = LayerwiseEquivarianceError(models[names[0]]).attribute(
        first_images(batches[names[0]])[:LAYERED], LAYER_GROUP
    )
    html = render(
        "imagenet.html.j2",
        package="captum_lie_timm",
        **lee_values(result),
        n=len(photographs),
        photographs=[name.replace("_", " ") for name in photographs],
        shown=next(iter(photographs)),
        answers={name: _answers(models[name], first_images(batches[name])) for name in names},
        relative=embed(plot_lee(result.table, relative=True)),
        maps=embed(pictures_of(result.models, groups=DRAWN)[0]),
        sigmas=smoothed(result.models),
        layered=names[0],
        layer_group=LAYER_GROUP.replace("_", " "),
        n_layered=LAYERED,
        depth=embed(depth_figure({names[0]: [layers]}, LAYER_GROUP)),
    )
    return Section("Trained ImageNet models on photographs", html, leading=True)


def _answers(model: nn.Module, images: Tensor) -> list[str]:
    """What a model calls each image, with its probability."""
    classes: Sequence[str] = getattr(model, "classes")  # noqa: B009 (typed as a module)
    with torch.no_grad():
        best = model(images).softmax(1).max(1)
    return [
        f"{classes[k].split(',')[0]} ({p:.0%})"
        for p, k in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]
