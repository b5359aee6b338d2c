"""Pictures of where in the image layers add to the error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from captum_lie.layouts import Layout
from captum_lie.show.maps import SIGNED, channels_last


def plot_layer_maps(
    image: Tensor, maps: Sequence[tuple[str, Tensor, Layout]], *, columns: int = 6
) -> Figure:
    """Attribution maps of layers over the image, summed over channels, with their totals.

    Prefix tokens have no place in the image: they count in the total alone.

    Args:
        image: ``[C, H, W]`` in [0, 1].
        maps: for each layer its title, the attribution of one example with its batch axis
            ``[1, ...]``, and its layout, which must have spatial axes.
        columns: panels in a row.

    Raises:
        ValueError: a layout without spatial axes, or one that the attribution does not fit.
    """
    count = len(maps) + 1
    rows = -(-count // columns)
    columns = min(columns, count)
    figure = Figure(figsize=(1.9 * columns, 2.1 * rows), layout="constrained")
    panels: Any = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels:
        axes.set_axis_off()
    picture = channels_last(image).squeeze()
    extent = (0, image.shape[2], image.shape[1], 0)
    panels[0].imshow(picture, cmap="gray", extent=extent)
    panels[0].set_title("image", fontsize=8)
    for axes, (title, attribution, layout) in zip(panels[1:], maps, strict=False):
        values = layout.to_image(attribution.detach().cpu()).double().sum(1)[0].numpy()
        largest = float(np.abs(values).max()) or 1.0
        grey = picture.mean(-1) if picture.ndim == 3 else picture
        axes.imshow(grey, cmap="gray", extent=extent, vmin=0, vmax=1)
        axes.imshow(values, cmap=SIGNED, vmin=-largest, vmax=largest, extent=extent, alpha=0.75)
        axes.set_title(f"{title}\n{attribution.double().sum():.2g}", fontsize=7)
    return figure
