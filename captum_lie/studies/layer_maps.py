"""Where in each image the leading modules of a decomposition add to the error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from torch import Tensor, nn

from captum_lie.core.groups import OneParameterGroup
from captum_lie.core.loaders import to_model
from captum_lie.layerwise import layer_maps
from captum_lie.results import LayerMap, LayerwiseResult, leading_calls
from captum_lie.show.layer_maps import plot_layer_maps


def draw_maps(
    models: Mapping[str, nn.Module],
    results: Mapping[str, Sequence[LayerwiseResult]],
    groups: Sequence[OneParameterGroup],
    images: Tensor | Mapping[str, Tensor],
) -> dict[tuple[str, str], list[Figure]]:
    """Where in each image the leading modules of each result add to the error.

    Args:
        models: by the names in ``results``.
        groups: in the order of each model's results.
        images: ``[n, C, H, W]``, for all models or for each by its name.
    """
    pictures: dict[tuple[str, str], list[Figure]] = {}
    for name, model in models.items():
        own = images[name] if isinstance(images, Mapping) else images
        for group, result in zip(groups, results[name], strict=True):
            leading = leading_calls(result)
            names = list(dict.fromkeys(name for name, _ in leading))
            found = layer_maps(model, to_model(model, own), names, group)
            maps = [m for key in leading for m in found if (m.module, m.call) == key]
            pictures[name, group.name] = [
                plot_layer_maps(
                    image,
                    [(_short(m), m.attribution[i : i + 1], m.layout) for m in maps],
                    columns=len(maps) + 1,
                )
                for i, image in enumerate(own)
            ]
    return pictures


def _short(found: LayerMap) -> str:
    call = f" #{found.call + 1}" if found.call else ""
    return ".".join(found.module.split(".")[-3:]) + call
