"""Parts of one set of images, to be measured apart and put together again."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader, SequentialSampler, Subset

from captum_lie.core.loaders import images_of
from captum_lie.errors import InvalidTypeError, InvalidValueError
from captum_lie.images import Batches


@dataclass(frozen=True)
class Shard:
    """The ``index``-th of ``count`` parts, counted from 0.

    Parts consist of whole batches, one after the other, so that every image is computed in the
    company in which an unsharded run would compute it: merged, they give the same numbers exactly.

    Example:
        >>> Shard.parse("1/3")
        Shard(index=1, count=3)
    """

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise InvalidValueError(
                f"A shard is I/N with I from 0 to N - 1; got {self.index}/{self.count}."
            )

    @staticmethod
    def parse(text: str) -> Shard:
        """``I/N``, as on a command line.

        Raises:
            ValueError: not of this form, or I not below N.
        """
        found = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", text)
        if found is None:
            raise InvalidValueError(f"A shard is written I/N, such as 0/4; got {text!r}.")
        return Shard(int(found[1]), int(found[2]))

    @staticmethod
    def from_environment() -> Shard:
        """That of a Slurm array job's task, or everything.

        Raises:
            ValueError: the array's tasks are not numbered from 0 to their count less one.
        """
        index = os.environ.get("SLURM_ARRAY_TASK_ID")
        if index is None:
            return Shard()
        first = int(os.environ.get("SLURM_ARRAY_TASK_MIN", "0"))
        return Shard(int(index) - first, int(os.environ.get("SLURM_ARRAY_TASK_COUNT", "1")))

    def of(self, batches: Batches) -> Batches:
        """This part of the batches.

        Raises:
            ValueError: there are fewer batches than parts.
        """
        if self.count == 1:
            return batches
        total = len(batches)
        if total < self.count:
            raise InvalidValueError(
                f"{total} batches cannot be shared out to {self.count} shards: use fewer shards, "
                "or a smaller batch size."
            )
        return batches.part(*self.bounds(total))

    def bounds(self, total: int) -> tuple[int, int]:
        """Of ``total`` batches the first of this part, and the first after it.

        Example:
            >>> [Shard(i, 3).bounds(4) for i in range(3)]
            [(0, 1), (1, 2), (2, 4)]
        """
        return self.index * total // self.count, (self.index + 1) * total // self.count


@dataclass(frozen=True)
class Part:
    """Consecutive batches of a data set, and the position of their first image."""

    batches: Iterable[Any]
    first: int


def part_of(loader: Iterable[Any], index: int, count: int) -> Part | None:
    """The ``index``-th of ``count`` parts of a loader, or None where there are fewer batches.

    Args:
        loader: a ``DataLoader`` that does not shuffle and has a batch size,
            :class:`~captum_lie.images.Batches`, or a list of batches.

    Raises:
        TypeError: it is something else.
        ValueError: it shuffles, has no batch size or holds nothing.

    Example:
        >>> import torch
        >>> [part.first for i in range(2) if (part := part_of([torch.rand(3, 1, 2, 2)] * 5, i, 2))]
        [0, 6]
    """
    if not isinstance(loader, DataLoader | Batches | Sequence):
        raise InvalidTypeError(
            "To be shared out among processes, images must come from a DataLoader, from "
            f"captum_lie.images.Batches or in a list of batches; got {type(loader).__name__}."
        )
    total = len(loader)
    if not total:
        raise InvalidValueError("There are no images: nothing to measure.")
    if index >= total:
        return None
    shard = Shard(index, min(count, total))
    if isinstance(loader, Batches):
        batches = shard.of(loader)
        return Part(batches, batches.first)
    start, stop = shard.bounds(total)
    if isinstance(loader, DataLoader):
        return _part_of_loader(loader, start, stop)
    return Part(loader[start:stop], sum(len(images_of(batch)) for batch in loader[:start]))


def _part_of_loader(loader: DataLoader[Any], start: int, stop: int) -> Part:
    size = loader.batch_size
    if size is None or not isinstance(loader.sampler, SequentialSampler):
        raise InvalidValueError(
            "A DataLoader that shuffles, or makes its batches itself, cannot be shared out: each "
            "process would see images of its own. Give one with batch_size and without shuffle."
        )
    first, end = start * size, min(stop * size, len(loader.sampler))
    own = DataLoader(
        Subset(loader.dataset, range(first, end)),
        batch_size=size,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        worker_init_fn=loader.worker_init_fn,
    )
    return Part(own, first)
