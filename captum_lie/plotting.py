"""Pictures of maps, errors and layers: everything that draws.

Results draw themselves with these, too (``result.plot()``).
"""

from captum_lie.show.bars import plot_lee
from captum_lie.show.icicle import Box, boxes, icicle, plot_icicle
from captum_lie.show.layer_maps import plot_layer_maps
from captum_lie.show.layers import COLOURS, plot_depth, plot_sampled
from captum_lie.show.maps import SIGNED, channels_last, plot_attribution, plot_maps
from captum_lie.show.smoothing import legible_sigma, smooth_map

__all__ = [
    "COLOURS",
    "SIGNED",
    "Box",
    "boxes",
    "channels_last",
    "icicle",
    "legible_sigma",
    "plot_attribution",
    "plot_depth",
    "plot_icicle",
    "plot_layer_maps",
    "plot_lee",
    "plot_maps",
    "plot_sampled",
    "smooth_map",
]
