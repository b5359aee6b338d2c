"""Metrics of one model under finite transformations, drawn with a seed."""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite
from typing import Any, Literal

from captum_lie import metrics
from captum_lie.metrics import MetricResult
from tests.numbers.families import Families
from tests.numbers.subjects import Subject


def by_metric(results: Iterable[MetricResult]) -> Families:
    """Value and standard error of every result, a family for each metric."""
    found: Families = {}
    for result in results:
        family = found.setdefault(result.metric, {})
        for name, value in (("value", result.value), ("stderr", result.stderr)):
            if isfinite(value):  # not where no image, or but one, is classified correctly
                family[f"{result.variant} {name}".strip()] = value
    return found


def suite(subject: Subject) -> Families:
    """Every sampled metric by its name, all groups and elements that fit the images."""
    names = [name for name in metrics.METRIC_NAMES if name != "lee_fd"]
    square = subject.images.shape[-1] == subject.images.shape[-2]
    options = {} if square else {"discrete_group": {"elements": ["flip_x", "flip_y", "rot180"]}}
    found = metrics.measure(
        subject.model,
        subject.images,
        names,
        labels=subject.labels,
        n_samples=3,
        seed=3,
        options=options,
    )
    return by_metric(found)


def finite_differences(subject: Subject, **options: Any) -> Families:
    """LEE of the model as a black box. It must be smooth: see :class:`Subject`."""
    assert subject.smooth
    return by_metric(metrics.finite_difference_lee(subject.model, subject.images, **options))


def borders(subject: Subject) -> Families:
    """The same metrics under other borders and rules, and as a function of the motion's size."""
    model, images = subject.model, subject.images
    drawn: dict[str, Any] = {"n_samples": 3, "seed": 3}
    curve = metrics.group_error_curve(model, images, "rotation", t=[0.01, 0.1, 1])
    found = by_metric(
        metrics.group_sample_error(model, images, interpolation="fourier", **drawn)
    ) | {"curve": {result.variant: result.value for result in curve}}
    shifts: tuple[Literal["reflect", "zero", "crop"], ...] = ("reflect", "zero", "crop")
    for beyond in shifts:
        table = metrics.consistency(model, images, border=beyond, max_shift=4, **drawn)
        found[f"consistency, {beyond}"] = {result.variant: result.value for result in table}
    motions = ("eq_t", "eq_t_frac", "eq_r")
    for border in ("reflect", "circular"):
        rule = {motion: {"border": border} for motion in motions}
        table = metrics.measure(model, images, motions, options=rule, **drawn)
        found[f"eq, {border}"] = {result.metric: result.value for result in table}
    return found
