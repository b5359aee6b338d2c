"""The report of a measurement: a self-contained HTML page, CSV and JSON, from its record alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from captum_lie.results import Measurement, ModelRecord
from captum_lie.results.files import write_atomically
from captum_lie.show.bars import plot_lee
from captum_lie.show.layer_report import layer_sections
from captum_lie.show.maps import plot_maps
from captum_lie.show.pages import embed, render
from captum_lie.show.smoothing import legible_sigma

FORMAT_VERSION = 2


def write_report(measurement: Measurement, folder: Path, *, raw_maps: bool = False) -> list[Path]:
    """Write ``report.html``, ``lee.csv``, ``lee.json`` (and ``metrics.csv``) into a folder.

    The folder is made if missing.

    Raises:
        OSError: the folder cannot be written to, or the disk is full; no file is left half-written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    contents: dict[str, Callable[[], str]] = {
        "report.html": lambda: render_html(measurement, raw_maps=raw_maps),
        "lee.csv": lambda: measurement.table.to_csv(index=False),
        "lee.json": lambda: render_json(measurement),
    }
    metrics = measurement.metrics
    if metrics is not None:
        contents["metrics.csv"] = lambda: metrics.to_csv(index=False)
    for name, content in contents.items():
        write_atomically(folder / name, content())
    return [folder / name for name in contents]


def render_json(measurement: Measurement) -> str:
    """The numbers of a measurement as JSON (``format`` 2)."""
    metrics = measurement.metrics
    content = {
        "format": FORMAT_VERSION,
        "settings": measurement.settings,
        "environment": asdict(measurement.environment),
        "models": {model.name: described(model) for model in measurement.models},
        "lee": json.loads(measurement.table.to_json(orient="records", double_precision=15)),
        "metrics": None
        if metrics is None
        else json.loads(metrics.to_json(orient="records", double_precision=15)),
        "principal_directions": {
            model: [
                {
                    "lee": directions.eigenvalues[rank].item(),
                    "direction": directions.directions[rank].tolist(),
                    "words": directions.describe(rank),
                }
                for rank in range(len(directions.eigenvalues))
            ]
            for model, directions in measurement.directions.items()
        },
    }
    return json.dumps(content, indent=2)


def described(model: ModelRecord) -> dict[str, Any]:
    """What a report says of a model beside its errors."""
    subject = {} if model.subject is None else asdict(model.subject)
    return subject | {
        "role": model.role,
        "control_of": model.control_of,
        "accuracy": model.accuracy,
        "accuracy_stderr": model.accuracy_stderr,
        "images": model.images_digest,
    }


def render_html(measurement: Measurement, *, raw_maps: bool = False) -> str:
    """A measurement as one self-contained HTML page, with its layers and sections if it has any.

    Maps of images larger than 64 pixels are smoothed, unless ``raw_maps``.
    """
    environment = measurement.environment
    return render(
        "report.html.j2",
        title=measurement.title,
        settings=measurement.settings
        | {"device": environment.device}
        | {name: environment.versions.get(name, "") for name in ("captum-lie", "torch")},
        n_models=len(measurement.trained),
        n=int(measurement.table["n"].max()),
        **lee_values(measurement),
        directions={
            m: (d.eigenvalues[0].item(), d.describe()) for m, d in measurement.directions.items()
        },
        pictures=[embed(f) for f in pictures_of(measurement.models, 0 if raw_maps else None)],
        sigmas=[] if raw_maps else smoothed(measurement.models),
        layers=layer_sections(measurement) if measurement.layers else None,
        metrics=_metric_rows(measurement),
        sections=measurement.sections,
    )


def _metric_rows(measurement: Measurement) -> list[dict[str, Any]]:
    """A row per baseline metric and variant, with a cell per model."""
    table = measurement.metrics
    if table is None:
        return []
    lee = measurement.table.rename(columns={"lee": "value"})
    lee = lee[lee["role"] == "trained"].set_index("model")
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
        "subjects": {m.name: described(m) for m in measurement.models if m.subject is not None},
        "number": lambda value: f"{value:.3g}",
    }


def pictures_of(
    models: Sequence[ModelRecord],
    smooth: float | None = None,
    *,
    groups: Collection[str] | None = None,
) -> list[Figure]:
    """For each image the maps of all models, a row each, over the image as that model saw it.

    Args:
        models: those without maps are left out.
        smooth: as for :func:`captum_lie.plotting.plot_maps`.
        groups: draw these alone.
    """
    drawn = [m for m in models if m.shown is not None and m.maps]
    return [
        plot_maps(
            [m.shown[i] for m in drawn if m.shown is not None],
            [
                (
                    m.name,
                    [
                        (group.replace("_", "\n", 1), a[i], a[i].double().sum().item())
                        for group, a in m.maps.items()
                        if groups is None or group in groups
                    ],
                )
                for m in drawn
            ],
            smooth=smooth,
        )
        for i in range(min((len(m.shown) for m in drawn if m.shown is not None), default=0))
    ]


def smoothed(models: Sequence[ModelRecord]) -> list[float]:
    """Standard deviations in pixels of the kernels by which maps are smoothed by default."""
    sizes = {tuple(m.shown.shape[-2:]) for m in models if m.shown is not None}
    return sorted({legible_sigma(*size) for size in sizes} - {0.0})
