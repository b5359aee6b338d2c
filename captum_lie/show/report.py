"""Reports: a self-contained HTML page, CSV and JSON. Files appear whole or not at all."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure
from torch import Tensor

from captum_lie.results.files import write_atomically
from captum_lie.show.bars import plot_lee
from captum_lie.show.maps import plot_maps
from captum_lie.show.smoothing import legible_sigma
from captum_lie.studies.measurement import UNTRAINED, Measurement, Picture

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Section:
    """A part that an adapter adds to a report: a heading and HTML below it.

    A leading one stands at the top.
    """

    title: str
    html: str
    leading: bool = False


def write_reports(
    measurement: Measurement,
    folder: Path,
    *,
    title: str,
    layers: dict[str, object] | None = None,
    sections: Callable[[], Sequence[Section]] = tuple,
    raw_maps: bool = False,
) -> list[Path]:
    """Write ``report.html``, ``lee.csv``, ``lee.json`` (and ``metrics.csv``) into a folder.

    The folder is made if missing.

    Args:
        sections: gives what adapters add, asked when all else is drawn.

    Raises:
        OSError: the folder cannot be written to, or the disk is full; no file is left half-written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    contents: dict[str, Callable[[], str]] = {
        "report.html": lambda: render_html(
            measurement, title=title, layers=layers, sections=sections, raw_maps=raw_maps
        ),
        "lee.csv": lambda: measurement.table.to_csv(index=False),
        "lee.json": lambda: render_json(measurement),
    }
    if measurement.metrics is not None:
        metrics = measurement.metrics
        contents["metrics.csv"] = lambda: metrics.to_csv(index=False)
    for name, content in contents.items():
        write_atomically(folder / name, content())
    return [folder / name for name in contents]


def render_json(measurement: Measurement) -> str:
    """The numbers of a measurement as JSON (``format`` 1)."""
    content = {
        "format": FORMAT_VERSION,
        "settings": measurement.settings,
        "models": {name: asdict(subject) for name, subject in measurement.subjects.items()},
        "lee": json.loads(measurement.table.to_json(orient="records", double_precision=15)),
        "metrics": None
        if measurement.metrics is None
        else json.loads(measurement.metrics.to_json(orient="records", double_precision=15)),
        "principal_directions": {
            model: [
                {
                    "lee": found.eigenvalues[rank].item(),
                    "direction": found.directions[rank].tolist(),
                    "words": found.describe(rank),
                }
                for rank in range(len(found.eigenvalues))
            ]
            for model, found in measurement.directions.items()
        },
    }
    return json.dumps(content, indent=2)


def render_html(
    measurement: Measurement,
    *,
    title: str,
    layers: dict[str, object] | None = None,
    sections: Callable[[], Sequence[Section]] = tuple,
    raw_maps: bool = False,
) -> str:
    """A measurement as one self-contained HTML page, with sections on its layers if given.

    Maps of images larger than 64 pixels are smoothed, unless ``raw_maps``.
    """
    return render(
        "report.html.j2",
        title=title,
        settings=measurement.settings,
        n_models=sum(not m.endswith(UNTRAINED) for m in set(measurement.table["model"])),
        n=int(measurement.table["n"].max()),
        **lee_values(measurement),
        directions={
            m: (d.eigenvalues[0].item(), d.describe()) for m, d in measurement.directions.items()
        },
        pictures=[
            embed(picture_of(picture, smooth=0 if raw_maps else None))
            for picture in measurement.pictures
        ],
        sigmas=[] if raw_maps else smoothed(measurement.pictures),
        layers=layers,
        metrics=_metric_rows(measurement),
        sections=sections(),
    )


def _metric_rows(measurement: Measurement) -> list[dict[str, Any]]:
    """A row per baseline metric and variant, with a cell per model."""
    table = measurement.metrics
    if table is None:
        return []
    trained = [m for m in dict.fromkeys(measurement.table["model"]) if not m.endswith(UNTRAINED)]
    lee = measurement.table.rename(columns={"lee": "value"}).set_index("model").loc[trained]
    rows = [
        {
            "metric": "lee",
            "variant": str(group).replace("_", " "),
            "unit": "mean square rate of the output",
            "border": measurement.settings.get("border", "reflect"),
            "n": int(part["n"].iloc[0]),
            "cells": part.assign(psnr=float("nan")).to_dict("index"),
        }
        for group, part in lee.groupby("group", sort=False)
    ]
    for (metric, variant), part in table.groupby(["metric", "variant"], sort=False, dropna=False):
        cells = part.set_index("model").to_dict("index")
        first = next(iter(cells.values()))
        rows.append(
            {
                "metric": metric,
                "variant": str(variant).replace("_", " "),
                "unit": first["unit"],
                "border": first["border"],
                "n": first["n"],
                "cells": cells,
            }
        )
    return rows


def lee_values(measurement: Measurement) -> dict[str, Any]:
    """What the templates of LEE and of the models need: bars, a row per model, what each saw."""
    table = measurement.table
    groups = list(dict.fromkeys(table["group"]))
    lee = table.set_index(["model", "group"])
    return {
        "bars": embed(plot_lee(table)),
        "groups": groups,
        "rows": [
            {"model": model, "cells": [lee.loc[(model, g)].to_dict() for g in groups]}
            for model in dict.fromkeys(table["model"])
        ],
        "subjects": measurement.subjects,
        "number": lambda value: f"{value:.3g}",
    }


def picture_of(picture: Picture, *, smooth: float | None = None) -> Figure:
    """Maps of one image by all models, a row each, over the image as that model saw it."""
    return plot_maps(
        [picture.images[model] for model in picture.maps],
        [(model, _titled(maps.items())) for model, maps in picture.maps.items()],
        smooth=smooth,
    )


def smoothed(pictures: Sequence[Picture]) -> list[float]:
    """Standard deviations in pixels of the kernels by which maps are smoothed by default."""
    sizes = {tuple(image.shape[-2:]) for p in pictures for image in p.images.values()}
    return sorted({legible_sigma(*size) for size in sizes} - {0.0})


def _titled(maps: Iterable[tuple[str, Tensor]]) -> list[tuple[str, Tensor, float]]:
    return [(group.replace("_", "\n", 1), a, a.double().sum().item()) for group, a in maps]


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
    """A figure as a PNG file."""
    buffer = io.BytesIO()
    options: dict[str, Any] = {"dpi": 110, "metadata": {"Software": None}}
    figure.savefig(buffer, format="png", **options)
    return buffer.getvalue()
