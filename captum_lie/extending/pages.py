"""Pages and sections of reports: self-contained HTML that loads nothing.

A section of the demo's report is a heading and HTML, from a template of the adapter's own:

>>> section = Section("What this adapter adds", "<p>Hello.</p>")
>>> section.leading
False

:func:`render` fills in ``templates/NAME`` of the package that it is given, which may include this
library's templates; figures become part of the page by :func:`embed`.
"""

from captum_lie.results import Section
from captum_lie.results.files import write_atomically, write_bytes_atomically
from captum_lie.show.layer_report import depth_figure
from captum_lie.show.pages import embed, png, render
from captum_lie.show.report import lee_values, pictures_of, smoothed

__all__ = [
    "Section",
    "depth_figure",
    "embed",
    "lee_values",
    "pictures_of",
    "png",
    "render",
    "smoothed",
    "write_atomically",
    "write_bytes_atomically",
]
