"""One large model over several processes: each measures its part of the images.

Started by torchrun, on one machine or several. Parts consist of whole batches, one after the other
(:class:`~captum_lie.studies.sharding.Shard`): no sample is repeated to make them even, and every
image is computed in the company in which one process would compute it.

- :func:`evaluate` reduces moments (:class:`~captum_lie.studies.moments.Moments`), a few hundred
  numbers however many images there are, and gives them to every process: for tables, and for
  training loops.
- :func:`carry_out` gathers the records themselves in the first process, where
  :func:`~captum_lie.results.merge` puts them together to exactly those of one process: a report
  holds what was measured of each image, from which it can be drawn and merged again, and moments
  do not tell that.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from captum_lie.attribution import LocalEquivarianceError
from captum_lie.core.groups import Groups, get_groups
from captum_lie.errors import InvalidValueError
from captum_lie.images import ImageSource
from captum_lie.results import Measurement, merge
from captum_lie.studies import plan as studies
from captum_lie.studies.candidates import Candidate
from captum_lie.studies.moments import Moments, combined, moments_of, nothing
from captum_lie.studies.sharding import Shard, part_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from captum_lie.attribution.collection import CollectionOptions


@contextmanager
def process_group() -> Iterator[None]:
    """Join the processes that torchrun started, if it started this one and others.

    By gloo, also where the models run on GPUs: what is exchanged are a few numbers on the CPU, and
    so several processes may share a GPU, which nccl refuses.

    Raises:
        ValueError: the processes know their ranks, but not where to meet.
    """
    if dist.is_initialized() or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    missing = [n for n in ("RANK", "MASTER_ADDR", "MASTER_PORT") if n not in os.environ]
    if missing:
        raise InvalidValueError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but {', '.join(missing)} is not set: start "
            "several processes with torchrun, or unset WORLD_SIZE for one alone."
        )
    dist.init_process_group("gloo")
    try:
        yield
        dist.barrier()  # nobody leaves while others still exchange something
    finally:
        dist.destroy_process_group()


def local_device() -> str:
    """The device of this process: of the GPUs of its machine, the one with its local rank."""
    if not torch.cuda.is_available():
        return "cpu"
    index = os.environ.get("LOCAL_RANK")
    return "cuda" if index is None else f"cuda:{index}"


def rank() -> int:
    """Which of the processes this is; 0 without a process group."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes there are; 1 without a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def evaluate(
    method: LocalEquivarianceError,
    loader: Iterable[Any],
    groups: Groups = "all",
    *,
    gram: bool = False,
    **options: Unpack[CollectionOptions],
) -> Moments:
    """LEE over a data set, each process taking its part: what ``method.evaluate`` gives of it all.

    Every process calls this with the same model, groups and loader.

    Args:
        method: with the model on this process's device.
        loader: of the whole data set, as :func:`~captum_lie.studies.sharding.part_of` takes it.
        groups, gram, options: as for
            :meth:`captum_lie.LocalEquivarianceError.collect`.

    Returns:
        Moments over all images, the same in every process; their ``to_dataframe()`` is that of
        :meth:`captum_lie.LocalEquivarianceError.evaluate`.

    Raises:
        TypeError, ValueError: no images, or a loader that cannot be shared out.

    Example:
        Without a process group there is one process:

        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 5))
        >>> found = evaluate(LocalEquivarianceError(model), [torch.rand(2, 3, 4, 4)], "rotation")
        >>> found.n, list(found.to_dataframe()["group"])
        (2, ['rotation'])
    """
    names = tuple(group.name for group in get_groups(groups))
    part = part_of(loader, rank(), world_size())
    mine = nothing(names)
    if part is not None:
        options["first_index"] = part.first
        mine = moments_of(method.collect(part.batches, groups, gram=gram, **options))
    return combined(_exchanged(mine))


def _exchanged(mine: Moments) -> list[Moments]:
    """The moments of all processes, in their order."""
    if world_size() == 1:
        return [mine]
    place = torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
    vector = mine.vector().to(place)
    vectors = [torch.empty_like(vector) for _ in range(world_size())]
    dist.all_gather(vectors, vector)
    return [Moments.from_vector(mine.groups, each.cpu()) for each in vectors]


def carry_out(
    plan: studies.Plan,
    candidates: Sequence[Candidate],
    source: ImageSource,
    device: torch.device,
) -> Measurement | None:
    """As :func:`captum_lie.studies.plan.carry_out`, each process taking its part of the images.

    Returns:
        In the first process the whole measurement, in the others None.

    Raises:
        ValueError: the plan is for a shard, a model does not take its images, or an image of a part
            cannot be read.
    """
    if plan.shard.count > 1:
        raise InvalidValueError(
            "Several processes share out the images themselves: leave out --shard."
        )
    mine = None
    count = min(world_size(), -(-len(source) // plan.demands.batch_size))
    if rank() < count:
        options = replace(plan.options, show_progress=plan.options.show_progress and not rank())
        part = replace(plan, shard=Shard(rank(), count), options=options)
        mine = studies.carry_out(part, candidates, source, device)
    if world_size() == 1:
        return mine
    gathered: list[Measurement | None] | None = None if rank() else [None] * world_size()
    dist.gather_object(mine, gathered)
    return None if gathered is None else merge([part for part in gathered if part is not None])
