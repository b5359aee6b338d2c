"""Pictures of an audit: reactions to growing motions, differences, and the worst images."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, PercentFormatter

from captum_lie.metrics import MetricResult
from captum_lie.plotting import channels_last
from captum_lie_onnx.audit_record import AuditRecord
from captum_lie_onnx.behaviour import Behaviour
from captum_lie_onnx.thresholds import Check

_CANDIDATE, _REFERENCE = "#c1440e", "#33658a"
_STATUS = {"pass": "#2a7f62", "fail": "#b3261e", "inconclusive": "#9a6b00"}


def plot_curves(candidate: Behaviour, reference: Behaviour | None) -> Figure:
    """Share of predictions that stay, against the size of a shift and of a rotation."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    panels: Any = figure.subplots(1, 2, sharey=True)
    behaviours = [(candidate, _CANDIDATE, "o-")]
    if reference is not None:
        behaviours.insert(0, (reference, _REFERENCE, "s--"))
    for axis, metric, label in zip(
        panels,
        ("changed_by_shift", "changed_by_rotation"),
        ("shift / px (circular)", "rotation / degrees"),
        strict=True,
    ):
        for behaviour, colour, style in behaviours:
            results = [r for r in behaviour.curves if r.metric == metric]
            sizes = [0.0] + [float(r.parameters["size"]) for r in results]
            stays = [1.0] + [1 - r.value for r in results]
            low = [1.0] + [1 - r.confidence_interval[1] for r in results]
            high = [1.0] + [1 - r.confidence_interval[0] for r in results]
            axis.plot(sizes, stays, style, color=colour, label=behaviour.name, markersize=4)
            axis.fill_between(sizes, low, high, color=colour, alpha=0.12, linewidth=0)
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("predictions that stay")
    panels[0].yaxis.set_major_formatter(PercentFormatter(1))
    panels[0].set_ylim(top=1.02)
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        loc="outside upper center", ncols=2, frameon=False, fontsize=9,
    )  # fmt: skip
    return figure


def plot_verdicts(checks: list[Check]) -> Figure:
    """Each line's value over its threshold: left of the line is within it."""
    shown = [c for c in checks if c.threshold > 0 and not c.name.startswith("parity.top")]
    figure = Figure(figsize=(9, 0.24 * len(shown) + 1.1), layout="constrained")
    axis = figure.add_subplot()
    ratio = np.array([c.value / c.threshold for c in shown])
    smallest = 1e-4
    places = np.arange(len(shown))
    left = np.clip(ratio, smallest, None)
    axis.hlines(places, smallest, left, color="0.85", linewidth=2, zorder=1)
    axis.scatter(left, places, c=[_STATUS[c.status] for c in shown], s=22, zorder=2)
    axis.axvline(1, color="0.2", linewidth=1)
    axis.set_xscale("log")
    axis.xaxis.set_minor_locator(NullLocator())  # over so many decades they say nothing
    axis.set_xlim(left=smallest * 0.8, right=max(10.0, left.max(initial=1) * 3))
    axis.set_yticks(places, [f"{c.name}  {c.variant}".strip() for c in shown], fontsize=7.5)
    axis.set_ylim(len(shown) - 0.5, -0.5)
    axis.set_xlabel("value / threshold (right of 1: exceeded)")
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
    for status, colour in _STATUS.items():
        axis.scatter([], [], c=colour, s=22, label=status)
    figure.legend(loc="outside upper right", ncols=3, frameon=False, fontsize=8.5)
    return figure


def plot_worst_scores(report: AuditRecord, most: int = 6) -> Figure | None:
    """The images whose scores differ most, with the first classes of both models."""
    if report.parity is None or report.reference is None or report.images is None:
        return None
    order = np.argsort(-report.parity.per_image, kind="stable")[:most]
    candidate, reference = (
        torch.from_numpy(b.outputs.astype(np.float64)).softmax(1).numpy()
        for b in (report.candidate, report.reference)
    )
    figure, axes = _panels(len(order))
    for (image, bars), i in zip(axes, order, strict=False):
        _show(image, report, int(i), f"largest difference {report.parity.per_image[i]:.2g}")
        classes = np.argsort(-np.maximum(candidate[i], reference[i]), kind="stable")[:3]
        places = np.arange(len(classes))
        bars.barh(places - 0.2, reference[i, classes], 0.38, color=_REFERENCE, label="reference")
        bars.barh(places + 0.2, candidate[i, classes], 0.38, color=_CANDIDATE, label="audited")
        bars.set_yticks(places, [f"class {c}" for c in classes], fontsize=7)
        bars.set_ylim(len(classes) - 0.4, -0.6)
        bars.set_xlim(0, 1)
        bars.set_xticks([0, 0.5, 1])
        bars.tick_params(labelsize=7)
        bars.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0][1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2, frameon=False, fontsize=8)
    return figure


def plot_worst_reactions(report: AuditRecord, most: int = 6) -> Figure | None:
    """The images whose reaction to some motion differs most from the reference's."""
    if report.reference is None or report.images is None:
        return None
    worst = _worst_reactions(report.candidate, report.reference, most)
    if not worst:
        return None
    figure = Figure(figsize=(1.7 * most, 2.3), layout="constrained")
    axes: Any = figure.subplots(1, most, squeeze=False)
    for axis in axes[0]:
        axis.axis("off")
    for axis, (i, result, expected) in zip(axes[0], worst, strict=False):
        _show(axis, report, i, f"{result.metric} {result.variant}".replace("_", " "))
        axis.text(
            0.5, -0.04,
            f"audited {result.per_example[i]:.2g}\nreference {expected.per_example[i]:.2g}",
            transform=axis.transAxes, ha="center", va="top", fontsize=7,
        )  # fmt: skip
    return figure


def _worst_reactions(
    candidate: Behaviour, reference: Behaviour, most: int
) -> list[tuple[int, MetricResult, MetricResult]]:
    """For each of the worst images, its metric with the largest difference over the mean value."""
    others = {(r.metric, r.variant): r for r in (*reference.metrics, *reference.lee)}
    pairs = [
        (r, others[r.metric, r.variant])
        for r in (*candidate.metrics, *candidate.lee)
        if r.n == len(candidate.outputs) and others[r.metric, r.variant].value > 0
    ]
    if not pairs:
        return []
    size = np.stack([np.abs(a.per_example - b.per_example) / b.value for a, b in pairs])
    order = np.argsort(-size.max(0), kind="stable")[:most]
    return [(int(i), *pairs[int(size[:, i].argmax())]) for i in order if size[:, i].max() > 0]


def _panels(n: int) -> tuple[Figure, list[Any]]:
    """An image and bars beside it, three pairs a row."""
    rows, columns = -(-n // 3), min(n, 3)
    figure = Figure(figsize=(3.3 * columns + 0.2, 1.75 * rows + 0.4), layout="constrained")
    grid: Any = figure.subplots(rows, 2 * columns, squeeze=False, width_ratios=[1, 1] * columns)
    pairs = [(row[2 * c], row[2 * c + 1]) for row in grid for c in range(columns)]
    for image, bars in pairs[n:]:
        image.axis("off")
        bars.axis("off")
    return figure, pairs[:n]


def _show(axis: Any, report: AuditRecord, i: int, title: str) -> None:
    assert report.images is not None
    axis.imshow(channels_last(report.images[i]).squeeze(), cmap="gray")
    axis.set_title(f"image {i}\n{title}", fontsize=7.5)
    axis.axis("off")
