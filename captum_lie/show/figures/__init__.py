"""The paper's figures, and some beyond it, from the cells of a sweep.

Each is a function from a :class:`Sweep` to a figure and the table behind it.
"""

from captum_lie.show.figures.drawing import BY_DEFAULT, FIGURES, Drawn, draw_figures, write_figure
from captum_lie.show.figures.slices_file import Slice, read_slices
from captum_lie.show.figures.sweep import FigureOptions, NothingToDraw, Sweep

__all__ = [
    "BY_DEFAULT",
    "FIGURES",
    "Drawn",
    "FigureOptions",
    "NothingToDraw",
    "Slice",
    "Sweep",
    "draw_figures",
    "read_slices",
    "write_figure",
]
