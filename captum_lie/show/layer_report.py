"""Reports of layerwise decompositions: CSV, JSON, PNG and a self-contained interactive page."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from captum_lie.results import LayerMap, LayerwiseResult, Measurement, ModelRecord
from captum_lie.results.files import write_atomically, write_bytes_atomically
from captum_lie.show.icicle import icicle
from captum_lie.show.layer_maps import plot_layer_maps
from captum_lie.show.layers import plot_depth
from captum_lie.show.pages import embed, png, render

#: Decompositions by model, one for each group.
Results = dict[str, list[LayerwiseResult]]


def table_of(results: Results) -> pd.DataFrame:
    """All rows of all models and groups, with columns ``model``, ``group`` and ``measure``."""
    parts = [
        result.to_dataframe().assign(model=model, group=result.group, measure=result.measure)
        for model, per_group in results.items()
        for result in per_group
    ]
    table = pd.concat(parts, ignore_index=True)
    first = ["model", "group", "measure"]
    return table[first + [c for c in table.columns if c not in first]]


def write_layer_report(measurement: Measurement, folder: Path) -> list[Path]:
    """Write ``layers.csv``, ``layers.json``, ``depth_GROUP.png`` and ``layers.html``.

    Where there are maps also ``maps_GROUP_MODEL_I.png``. The folder is made if missing.

    Raises:
        OSError: the folder cannot be written to, or the disk is full; no file is half-written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    results = measurement.layers
    table = table_of(results)
    csv, data, page = (folder / f"layers.{ending}" for ending in ("csv", "json", "html"))
    write_atomically(csv, table.to_csv(index=False))
    write_atomically(data, json.dumps(json.loads(table.to_json(orient="records")), indent=1))
    pictures = {f"depth_{_file_name(g)}": depth_figure(results, g) for g in groups_of(results)}
    for model in measurement.models:
        for group in model.layer_maps:
            for i, figure in enumerate(map_figures(model, group)):
                pictures[f"maps_{_file_name(group)}_{_file_name(model.name)}_{i}"] = figure
    for name, figure in pictures.items():
        write_bytes_atomically(folder / f"{name}.png", png(figure))
    html = render("layers.html.j2", title=measurement.title, **layer_sections(measurement))
    write_atomically(page, html)
    return [page, csv, data, *(folder / f"{name}.png" for name in pictures)]


def _file_name(text: str) -> str:
    return "".join(c if c.isalnum() or c in "-." else "_" for c in text)


def groups_of(results: Results) -> list[str]:
    """The groups of all decompositions."""
    return list(dict.fromkeys(r.group for per_group in results.values() for r in per_group))


def depth_figure(results: Results, group: str) -> Figure:
    """One panel for each model."""
    chosen = {m: r for m, per_group in results.items() for r in per_group if r.group == group}
    titles = [
        f"{model}: {group.replace('_', ' ')}, {r.measure}, total {r.contributions[0].mean():.3g}"
        for model, r in chosen.items()
    ]
    return plot_depth(*chosen.values(), titles=titles)


def map_figures(model: ModelRecord, group: str) -> list[Figure]:
    """For each image where the leading modules of a decomposition add to the error."""
    maps = model.layer_maps[group]
    if model.shown is None or not maps:
        return []
    return [
        plot_layer_maps(
            model.shown[i],
            [(_short(m), m.attribution[i : i + 1], m.layout) for m in maps],
            columns=len(maps) + 1,
        )
        for i in range(len(maps[0].attribution))
    ]


def _short(drawn: LayerMap) -> str:
    call = f" #{drawn.call + 1}" if drawn.call else ""
    return ".".join(drawn.module.split(".")[-3:]) + call


def layer_sections(measurement: Measurement) -> dict[str, Any]:
    """What a template needs to show the layers; the first icicle carries plotly's code."""
    results = measurement.layers
    sections = []
    code = True
    for group in groups_of(results):
        icicles = []
        for model, per_group in results.items():
            for result in (r for r in per_group if r.group == group):
                buffer = io.StringIO()
                icicle(result, title=f"{model}: {group.replace('_', ' ')}").write_html(
                    buffer,
                    full_html=False,
                    include_plotlyjs=code,
                    default_height="480px",
                    div_id=f"icicle-{_file_name(group)}-{_file_name(model)}",
                )
                icicles.append(buffer.getvalue())
                code = False
        sections.append(
            {
                "group": group,
                "depth": embed(depth_figure(results, group)),
                "icicles": icicles,
                "maps": [
                    (model.name, embed(figure))
                    for model in measurement.models
                    if group in model.layer_maps
                    for figure in map_figures(model, group)
                ],
            }
        )
    every = [result for per_group in results.values() for result in per_group]
    return {
        "layer_sections": sections,
        "resolved": {model: rs[0].resolved_share for model, rs in results.items()},
        "largest": _largest(results),
        "measure": every[0].measure,
        "method": every[0].method,
        "n_images": len(every[0].total),
    }


def _largest(results: Results, most: int = 12) -> list[dict[str, object]]:
    table = table_of(results).dropna(subset="self_contribution")
    blocks = []
    for (model, group), part in table.groupby(["model", "group"], sort=False):
        order = part["self_contribution"].abs().sort_values(ascending=False).index
        rows = part.reindex(order).head(most).to_dict("records")
        blocks.append({"model": model, "group": group, "rows": rows})
    return blocks
