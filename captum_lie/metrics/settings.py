"""What metrics have in common: how a model is evaluated, and what is read of its output.

Each group of options is a frozen dataclass, which has their defaults and checks them, and the
keywords of its name, which the metrics' signatures spell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from captum_lie.core.derivative import OutputFn
from captum_lie.core.outputs import softmax
from captum_lie.errors import InvalidValueError
from captum_lie.layouts import TRIVIAL, Layout, OutputLayout, as_output_layout
from captum_lie.metrics.sampling import Sampling


class BatchingOptions(TypedDict, total=False):
    """Keywords of :class:`Batching`."""

    batch_size: int
    first_index: int
    show_progress: bool


class EvaluationOptions(BatchingOptions, total=False):
    """Keywords of :class:`Evaluation`."""

    output_fn: OutputFn | None
    output_layout: OutputLayout


class SampledBatchingOptions(BatchingOptions, total=False):
    """Keywords of :class:`SampledBatching`."""

    n_samples: int
    seed: int


class SampledEvaluationOptions(EvaluationOptions, total=False):
    """Keywords of :class:`SampledEvaluation`."""

    n_samples: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class Batching:
    """How images go to the model.

    Attributes:
        batch_size: images per call of the model.
        first_index: position of the first image in the data, for a part of a larger set.
        show_progress: show a progress bar.

    Raises:
        ValueError: no image at a time, or a negative position.
    """

    batch_size: int = 32
    first_index: int = 0
    show_progress: bool = False

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise InvalidValueError(f"batch_size must be at least 1; got {self.batch_size}.")
        if self.first_index < 0:
            raise InvalidValueError(f"first_index must not be negative; got {self.first_index}.")


@dataclass(frozen=True, kw_only=True)
class Evaluation(Batching):
    """What is read of the model's output.

    Attributes:
        output_fn: applied to the output; None for none.
        output_layout: :data:`captum_lie.layouts.NCHW` or another layout with spatial axes for
            outputs that should move with the input; ``TRIVIAL`` for those that should stay put.
    """

    output_fn: OutputFn | None = softmax
    output_layout: OutputLayout = TRIVIAL

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "output_layout", as_output_layout(self.output_layout))

    @property
    def layout(self) -> Layout:
        """That of the output."""
        return as_output_layout(self.output_layout)


@dataclass(frozen=True, kw_only=True)
class _Sampled:
    n_samples: int = 10
    seed: int = 0

    @property
    def sampling(self) -> Sampling:
        """Which transformations each image gets."""
        return Sampling(self.n_samples, self.seed)


@dataclass(frozen=True, kw_only=True)
class SampledBatching(_Sampled, Batching):
    """How images go to the model, and how many transformations each one gets."""


@dataclass(frozen=True, kw_only=True)
class SampledEvaluation(_Sampled, Evaluation):
    """What is read of the output, and how many transformations each image gets."""
