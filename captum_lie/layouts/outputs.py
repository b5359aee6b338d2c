"""The layout of a model's output, as users give it."""

from __future__ import annotations

import warnings
from typing import Literal

from captum_lie.errors import InvalidValueError
from captum_lie.layouts.layout import NCHW, TRIVIAL, UNKNOWN, Layout

#: A layout, or one of the names that stood for two of them until 0.1.
OutputLayout = Layout | Literal["trivial", "image"]


def as_output_layout(layout: OutputLayout) -> Layout:
    """The layout of an output: ``TRIVIAL`` for what should stay put, others for what should move.

    Raises:
        ValueError: it is unknown or none, or its first axis holds more than the examples.

    Example:
        >>> print(as_output_layout(NCHW))
        nchw
    """
    if layout in ("trivial", "image"):
        found = TRIVIAL if layout == "trivial" else NCHW
        warnings.warn(
            f"output_layout={layout!r} will go: pass captum_lie.layouts.{str(found).upper()}.",
            DeprecationWarning,
            stacklevel=3,
        )
        return found
    if not isinstance(layout, Layout) or layout == UNKNOWN:
        raise InvalidValueError(
            f"Unknown output_layout {str(layout)!r}. Pass a layout: captum_lie.layouts.TRIVIAL for "
            "outputs that should stay put, such as class scores, captum_lie.layouts.NCHW for "
            "images, or the layout of tokens."
        )
    if layout.pattern is not None and layout.pattern.on_axis(0) != "n":
        raise InvalidValueError(
            f"Outputs are [N, ...]: the layout {layout} has more than the examples on its first "
            "axis. Let the model put them apart."
        )
    return layout
