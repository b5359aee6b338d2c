"""All metrics by name, one after the other: what the command line and the report call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from captum_lie.core.groups import Groups
from captum_lie.core.validation import one_of
from captum_lie.errors import InvalidValueError
from captum_lie.metrics.agreement import consistency
from captum_lie.metrics.alias_free import eq_r, eq_t, eq_t_frac
from captum_lie.metrics.discrete import discrete_group_error
from captum_lie.metrics.finite_difference import finite_difference_lee
from captum_lie.metrics.group_sample import group_sample_error
from captum_lie.metrics.settings import BatchingOptions, SampledEvaluationOptions
from captum_lie.metrics.streaming import Images, Model
from captum_lie.results.metrics import MetricResult, MetricTable

if TYPE_CHECKING:
    from typing_extensions import Unpack

_OUTPUT = ("output_fn", "output_layout")
_DRAWS = ("n_samples", "seed")
#: Each metric and which of the common options it takes, beside those of :class:`Batching`.
_METRICS: dict[str, tuple[Callable[..., MetricTable | MetricResult], tuple[str, ...]]] = {
    "consistency": (consistency, ("labels", *_DRAWS)),
    "eq_t": (eq_t, (*_OUTPUT, *_DRAWS)),
    "eq_t_frac": (eq_t_frac, (*_OUTPUT, *_DRAWS)),
    "eq_r": (eq_r, (*_OUTPUT, *_DRAWS)),
    "group_sample": (group_sample_error, ("groups", *_OUTPUT, *_DRAWS)),
    "discrete_group": (discrete_group_error, _OUTPUT),
    "lee_fd": (finite_difference_lee, ("groups", *_OUTPUT)),
}
METRIC_NAMES: tuple[str, ...] = tuple(_METRICS)


def measure(
    model: Model,
    images: Images,
    metrics: str | Sequence[str] = METRIC_NAMES,
    *,
    labels: Tensor | None = None,
    groups: Groups = "all",
    options: Mapping[str, Mapping[str, Any]] | None = None,
    **common: Unpack[SampledEvaluationOptions],
) -> MetricTable:
    """Several metrics of one model.

    Args:
        model: images ``[N, C, H, W]`` to scores ``[N, K]``; any callable.
        images: a tensor, or a loader that can be iterated once per metric.
        metrics: names from :data:`METRIC_NAMES`, in a sequence or separated by commas.
        labels, groups: passed to every metric that takes them.
        options: further options by metric, such as ``{"eq_t": {"border": "circular"}}``; they win
            over the common ones.
        output_fn, output_layout, n_samples, seed, batch_size, first_index, show_progress: common to
            all metrics that take them, see :func:`eq_t`.

    Returns:
        All results, in the order of the names.

    Raises:
        ValueError: an unknown name, or a one-shot iterator for more than one metric.

    Example:
        >>> import torch
        >>> table = measure(lambda x: x.mean((2, 3)), torch.rand(2, 3, 16, 16), "eq_t,eq_t_frac")
        >>> [result.metric for result in table]
        ['eq_t', 'eq_t_frac']
    """
    names = [n.strip() for n in metrics.split(",")] if isinstance(metrics, str) else list(metrics)
    if not names:
        raise InvalidValueError(f"No metric given. Name at least one of {', '.join(METRIC_NAMES)}.")
    for name in (*names, *(options or {})):
        one_of("metric", name, METRIC_NAMES)
    if isinstance(images, Iterator) and len(names) > 1:
        raise InvalidValueError(
            f"{len(names)} metrics need the images as often, but a one-shot iterator "
            f"({type(images).__name__}) yields them once. Pass a tensor, a list or a DataLoader."
        )
    given = {"labels": labels, "groups": groups, **common}
    results: list[MetricResult] = []
    for name in names:
        metric, takes = _METRICS[name]
        taken = {k: given[k] for k in (*takes, *BatchingOptions.__annotations__) if k in given}
        measured = metric(model, images, **taken | dict((options or {}).get(name, {})))
        results.extend([measured] if isinstance(measured, MetricResult) else measured)
    return MetricTable(results)
