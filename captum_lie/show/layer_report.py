"""Reports of layerwise decompositions: CSV, JSON, PNG and a self-contained interactive page."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from captum_lie.results.files import write_atomically, write_bytes_atomically
from captum_lie.results.layerwise import LayerwiseResult
from captum_lie.show.icicle import icicle
from captum_lie.show.layers import plot_depth
from captum_lie.show.report import embed, png, render

Results = dict[str, list[LayerwiseResult]]

#: Figures by model and group, one for each image.
Pictures = dict[tuple[str, str], list[Figure]]


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


def write_layer_reports(
    results: Results, folder: Path, *, title: str, maps: Pictures | None = None
) -> list[Path]:
    """Write ``layers.csv``, ``layers.json``, ``depth_GROUP.png`` and ``layers.html``.

    With ``maps`` also ``maps_GROUP_MODEL_I.png``.

    Raises:
        OSError: the folder cannot be written to, or the disk is full; no file is half-written.
    """
    table = table_of(results)
    csv, data, page = (folder / f"layers.{ending}" for ending in ("csv", "json", "html"))
    write_atomically(csv, table.to_csv(index=False))
    write_atomically(data, json.dumps(json.loads(table.to_json(orient="records")), indent=1))
    pictures = []
    for group in groups_of(results):
        picture = folder / f"depth_{_file_name(group)}.png"
        write_bytes_atomically(picture, png(depth_figure(results, group)))
        pictures.append(picture)
    for (model, group), figures in (maps or {}).items():
        for i, figure in enumerate(figures):
            picture = folder / f"maps_{_file_name(group)}_{_file_name(model)}_{i}.png"
            write_bytes_atomically(picture, png(figure))
            pictures.append(picture)
    sections = layer_sections(results, maps)
    write_atomically(page, render("layers.html.j2", title=title, **sections))
    return [page, csv, data, *pictures]


def _file_name(text: str) -> str:
    return "".join(c if c.isalnum() or c in "-." else "_" for c in text)


def groups_of(results: Results) -> list[str]:
    return list(dict.fromkeys(r.group for per_group in results.values() for r in per_group))


def depth_figure(results: Results, group: str) -> Figure:
    """One panel for each model."""
    chosen = {m: r for m, per_group in results.items() for r in per_group if r.group == group}
    titles = [
        f"{model}: {group.replace('_', ' ')}, {r.measure}, total {r.contributions[0].mean():.3g}"
        for model, r in chosen.items()
    ]
    return plot_depth(*chosen.values(), titles=titles)


def layer_sections(results: Results, maps: Pictures | None = None) -> dict[str, Any]:
    """What a template needs to show the results; the first icicle carries plotly's code."""
    sections = []
    code = True
    for group in groups_of(results):
        icicles = []
        for model, per_group in results.items():
            for result in (r for r in per_group if r.group == group):
                buffer = io.StringIO()
                icicle(result, title=f"{model}: {group.replace('_', ' ')}").write_html(
                    buffer, full_html=False, include_plotlyjs=code, default_height="480px"
                )
                icicles.append(buffer.getvalue())
                code = False
        sections.append(
            {
                "group": group,
                "depth": embed(depth_figure(results, group)),
                "icicles": icicles,
                "maps": [
                    (model, embed(figure))
                    for model in results
                    for figure in (maps or {}).get((model, group), [])
                ],
            }
        )
    every: Sequence[LayerwiseResult] = [r for rs in results.values() for r in rs]
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
    found = []
    for (model, group), part in table.groupby(["model", "group"], sort=False):
        order = part["self_contribution"].abs().sort_values(ascending=False).index
        rows = part.reindex(order).head(most).to_dict("records")
        found.append({"model": model, "group": group, "rows": rows})
    return found
