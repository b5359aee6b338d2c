"""Parts of one set of images, to be measured apart and put together again."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from captum_lie.errors import InvalidValueError
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
        start, stop = (i * total // self.count for i in (self.index, self.index + 1))
        return batches.part(start, stop)
