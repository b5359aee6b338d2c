"""Layouts: which axes of a tensor are spatial, and how a group acts on it.

The contribution of a module means something only if the representation at its input and output is
right. Layouts are inferred from evidence (:func:`infer`), never guessed: a tensor that fits none,
or several equally well, is ``UNKNOWN``, and its module is folded into the nearest ancestor whose
boundaries are known. Adapters register what they know by module class (:func:`register`), users
override by module name.
"""

from captum_lie.layouts.evidence import Evidence
from captum_lie.layouts.inference import Rule, infer, register
from captum_lie.layouts.layout import NCHW, NHWC, TRIVIAL, UNKNOWN, Layout, regrouped
from captum_lie.layouts.names import Kind
from captum_lie.layouts.outputs import OutputLayout, as_output_layout
from captum_lie.layouts.passing import passes_on, register_passing
from captum_lie.layouts.pattern import Pattern
from captum_lie.layouts.rules import channels_last, image_or_trivial
from captum_lie.layouts.shapes import by_shape, find_grid, is_downsampled, token_layouts

#: A name of :class:`Pattern` that will go.
Regrouping = Pattern

__all__ = [
    "NCHW",
    "NHWC",
    "TRIVIAL",
    "UNKNOWN",
    "Evidence",
    "Kind",
    "Layout",
    "OutputLayout",
    "Pattern",
    "Regrouping",
    "Rule",
    "as_output_layout",
    "by_shape",
    "channels_last",
    "find_grid",
    "image_or_trivial",
    "infer",
    "is_downsampled",
    "passes_on",
    "register",
    "register_passing",
    "regrouped",
    "token_layouts",
]
