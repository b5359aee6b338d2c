"""Pictures of signed attribution maps beside their image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import torch
from captum.attr import visualization
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from captum_lie.errors import InvalidValueError
from captum_lie.show.smoothing import legible_sigma, smooth_map

if TYPE_CHECKING:
    from typing_extensions import Unpack

#: Diverging colours for signed values: blue below zero, white at zero, red above.
SIGNED = "RdBu_r"


class Style(TypedDict, total=False):
    """Keywords of :func:`plot_attribution` that say how values are drawn."""

    smooth: float
    outlier_percentage: float
    colorbar: bool


def plot_attribution(
    attribution: Tensor,
    image: Tensor | None = None,
    *,
    ax: Axes | None = None,
    title: str | None = None,
    method: str = "heat_map",
    **style: Unpack[Style],
) -> Figure:
    """One attribution map in diverging colours centred at zero, summed over channels.

    On large images single pixels are specks: ``smooth=legible_sigma(224, 224)`` with
    ``method="overlay"`` shows where they lie. Other methods are those of
    :func:`captum.attr.visualization.visualize_image_attr`; a map that is zero everywhere, on which
    Captum's function asserts, is drawn as a blank map that says so.

    Args:
        attribution: ``[C, H, W]``, signed.
        image: ``[C, H, W]`` in [0, 1]; needed for the methods that show it.
        ax: draw here instead of on a new figure.
        method: ``"overlay"`` (over the grey image, which shows where the map is near zero), or any
            method of Captum's function (``"heat_map"``, ``"blended_heat_map"``, ...).
        smooth: standard deviation in pixels of a Gaussian that spreads each value and keeps their
            sum, see :func:`smooth_map`; 0, the default, draws the values as they are.
        outlier_percentage: share of the largest values that saturate the colours; 2 by default.
        colorbar: add a colour bar; values are relative to the largest shown.

    Raises:
        ValueError: not one map ``[C, H, W]``, or not finite; an overlay without an image.

    Example:
        >>> figure = plot_attribution(torch.zeros(3, 8, 8), title="an equivariant model")
        >>> figure.axes[0].get_title()
        'an equivariant model'
    """
    if attribution.ndim != 3 or not attribution.isfinite().all():
        raise InvalidValueError(
            f"plot_attribution draws one finite map [C, H, W]; got {tuple(attribution.shape)}. "
            "Pick an example: attribution[0]."
        )
    if method == "overlay" and image is None:
        raise InvalidValueError("method='overlay' draws over an image: pass it as the second one.")
    if ax is None:
        figure = Figure(figsize=(4, 4), layout="constrained")
        ax = figure.add_subplot()
    else:
        figure = ax.figure.figure  # the root, where axes lie on a subfigure
    colorbar, outliers = style.get("colorbar", False), style.get("outlier_percentage", 2.0)
    smoothed = smooth_map(attribution.detach().cpu(), style.get("smooth", 0.0))
    values = smoothed.permute(1, 2, 0).numpy()
    # Captum scales by a percentile of the map, and refuses one that rounds to zero.
    largest = np.percentile(np.abs(values.sum(2)), 100 - outliers)
    if largest < 1e-12:
        ax.imshow(values.sum(2), cmap=SIGNED, vmin=-1, vmax=1)
        height, width = values.shape[:2]
        note = "zero everywhere" if np.abs(values).max() < 1e-12 else "almost all zero"
        ax.text((width - 1) / 2, (height - 1) / 2, note, ha="center", va="center", fontsize=8)
    elif method == "overlay" and image is not None:
        _overlay(ax, values.sum(2) / largest, image, colorbar)
    else:
        visualization.visualize_image_attr(
            values / largest,
            None if image is None else channels_last(image),
            method=method,
            sign="all",
            plt_fig_axis=(figure, ax),
            outlier_perc=outliers,
            cmap=SIGNED,
            show_colorbar=colorbar,
            use_pyplot=False,
        )
    ax.set_xticks([])
    ax.set_yticks([])
    if title:
        ax.set_title(title, fontsize=9)
    return figure


def _overlay(axes: Axes, values: np.ndarray, image: Tensor, colorbar: bool) -> None:
    """A map in [-1, 1] over the grey image, opaque where it is large."""
    grey = channels_last(image).mean(2)
    # Faded, so that the photograph is not taken for the map.
    axes.imshow(0.35 + 0.65 * grey, cmap="gray", vmin=0, vmax=1)
    opacity = np.clip(np.abs(values), 0, 1) ** 0.5
    shown = axes.imshow(values, cmap=SIGNED, vmin=-1, vmax=1, alpha=0.9 * opacity)
    if colorbar:
        axes.figure.colorbar(shown, ax=axes, location="bottom", shrink=0.8)


def plot_maps(
    image: Tensor | Sequence[Tensor],
    rows: Sequence[tuple[str, Sequence[tuple[str, Tensor, float]]]],
    *,
    smooth: float | None = None,
) -> Figure:
    """The image, and a grid of its attribution maps: a row per model, a column per group.

    Args:
        image: ``[C, H, W]`` in [0, 1]; or one for each row, where models see it differently.
        rows: for each row its label and its maps; each map has a title, the attribution
            ``[C, H, W]`` and the total that it sums to, which is printed below it.
        smooth: as for :func:`plot_attribution`; by default :func:`legible_sigma` of each row's
            size. Smoothed maps are drawn over the grey image.

    Example:
        >>> attribution = torch.randn(3, 8, 8)
        >>> row = ("cnn", [("rotation", attribution, attribution.sum().item())])
        >>> figure = plot_maps(torch.rand(3, 8, 8), [row])
        >>> [axes.get_title() for axes in figure.axes]
        ['', 'rotation']
    """
    columns = 1 + max(len(maps) for _, maps in rows)
    figure = Figure(figsize=(1.55 * columns, 1.8 * len(rows) + 0.3), layout="constrained")
    grid: Any = figure.subplots(len(rows), columns, squeeze=False)
    images = [image] * len(rows) if isinstance(image, Tensor) else image
    for r, (own, (label, maps)) in enumerate(zip(images, rows, strict=True)):
        sigma = legible_sigma(*own.shape[-2:]) if smooth is None else smooth
        grid[r, 0].imshow(channels_last(own).squeeze(), cmap="gray")
        grid[r, 0].set_ylabel(label, fontsize=9)
        for axis in grid[r]:
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set_visible(False)
        for axis, (title, attribution, total) in zip(grid[r, 1:], maps, strict=False):
            plot_attribution(
                attribution,
                own,
                ax=axis,
                title=title if r == 0 else None,
                method="overlay" if sigma else "heat_map",
                smooth=sigma,
            )
            axis.set_xlabel(f"{total:.3g}", fontsize=8)
    return figure


def channels_last(image: Tensor) -> np.ndarray:
    """An image to draw, ``[H, W, 3]`` or ``[H, W, 1]``: the mean where channels are no colours."""
    if len(image) not in (1, 3):
        image = image.mean(0, keepdim=True)
    return np.asarray(image.detach().cpu().clamp(0, 1).permute(1, 2, 0).to(torch.float64))
