"""What pages are made of: templates filled in, and figures embedded in them."""

from __future__ import annotations

import base64
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from captum_lie.show.writing import encoded


def render(template: str, *, package: str = "captum_lie.show", **values: Any) -> str:
    """A template of this package, or of an adapter that includes this package's, filled in."""
    environment = Environment(
        loader=ChoiceLoader(
            [PackageLoader(name) for name in dict.fromkeys((package, "captum_lie.show"))]
        ),
        autoescape=True,
        undefined=StrictUndefined,
    )
    return environment.get_template(template).render(**values)


def embed(figure: Figure) -> str:
    """A figure as a data URI."""
    return "data:image/png;base64," + base64.b64encode(png(figure)).decode()


def png(figure: Figure) -> bytes:
    """A figure as a PNG file, the same for the same figure."""
    return encoded(figure, "png", dpi=110)
