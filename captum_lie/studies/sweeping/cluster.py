"""A sweep on a cluster: an array job, each of whose tasks computes the cells of some models.

A thin layer over submitit (extra ``cluster``). Cells are files, so that nothing need be sent back,
and a task that is queued again computes what is missing.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from captum_lie.core.validation import one_of
from captum_lie.errors import InvalidValueError
from captum_lie.studies.sweeping.grid import grid_of
from captum_lie.studies.sweeping.images import Split, fingerprints
from captum_lie.studies.sweeping.listing import Asked
from captum_lie.studies.sweeping.part import Part
from captum_lie.studies.sweeping.processes import stamp
from captum_lie.studies.sweeping.settings import Resources, SweepSettings
from captum_lie.studies.sweeping.store import Store
from captum_lie.studies.sweeping.submission import ClusterName, Submission, queued
from captum_lie.studies.sweeping.work import Again

#: Tasks of an array job, where their number is not given.
TASKS: dict[ClusterName, int] = {"local": 1, "slurm": 8}

#: How often a task that reached its time limit is queued again.
TIMEOUTS = 20


@dataclass(frozen=True)
class Cluster:
    """Where a sweep's tasks run, and what each of them is given.

    Attributes:
        name: ``"slurm"``, or ``"local"`` for processes on this machine.
        tasks: size of the array, at most one a model; by default 8 on Slurm, 1 on this machine.
        minutes: time limit of a task, at least 5; one that reaches it is queued again and goes on.
        partition: of Slurm; by default the cluster's own choice.
        gpus: of each task, which computes a model on each; by default the cluster's own choice.
        cpus: of each task.
        options: more of ``sbatch``'s, by name; True for one without a value.

    Raises:
        ValueError: an unknown cluster, or a number that is too small.
    """

    name: ClusterName
    tasks: int | None = None
    minutes: int = 60
    partition: str | None = None
    gpus: int | None = None
    cpus: int | None = None
    options: Mapping[str, str | bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        one_of("cluster", self.name, tuple(TASKS))
        for name, least in (("tasks", 1), ("minutes", 5), ("gpus", 0), ("cpus", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InvalidValueError(f"{name} must be at least {least}; got {value}.")

    def parameters(self) -> dict[str, Any]:
        """As submitit calls them; None where it may choose."""
        here = self.name == "local" and self.gpus is None
        return {
            "timeout_min": self.minutes,
            "gpus_per_node": torch.cuda.device_count() if here else self.gpus,
            "cpus_per_task": self.cpus,
            "slurm_partition": self.partition,
            # Since Slurm 22.05 a step does not inherit this from its job.
            "slurm_srun_args": self.cpus and [f"--cpus-per-task={self.cpus}"],
            "slurm_additional_parameters": {"requeue": True, **self.options},
        }


def submit(
    cluster: Cluster,
    models: Sequence[Asked],
    splits: Sequence[Split],
    out: Path,
    settings: SweepSettings | None = None,
    *,
    resources: Resources | None = None,
    again: Again | None = None,
) -> Submission:
    """Hand the missing cells of a sweep to a cluster.

    Images and checkpoints are read here, once, so that what is not there is known before anything
    is queued. While jobs of an earlier submission for the same folder are queued or running on
    Slurm, nothing is submitted: :meth:`Submission.collect` waits for those.

    Args:
        cluster: where, and with what.
        models, splits, out, settings, resources, again: as for
            :func:`~captum_lie.studies.sweeping.sweep`. The folder must be one that the cluster's
            machines share; jobs start in the current folder.

    Raises:
        OSError: images, checkpoints or the folder cannot be read or written.
        ValueError: images cannot be used, the disk is full, submitit or Slurm is not installed, or
            Slurm refuses the jobs.
    """
    _check_installed(cluster)
    resources, again = resources or Resources(), again or Again()
    store = Store(out.absolute())
    grid = grid_of(models, splits, settings or SweepSettings(), fingerprints(splits))
    wanted = [task for task in grid.tasks if again.wanted(store.read(task.key))]
    before = {task.key: stamp(store, task) for task in wanted}
    submission = Submission(cluster.name, grid, store, before)
    if not wanted or (cluster.name == "slurm" and queued(submission.name)):
        return submission
    missing = replace(grid, tasks=tuple(wanted))
    count = min(cluster.tasks or TASKS[cluster.name], len(missing.models()))
    parts = [
        Part(missing.shard(i, count), store.folder, resources, again, cluster.cpus)
        for i in range(count)
    ]
    return replace(submission, jobs=_submitted(parts, cluster, submission))


def _submitted(parts: Sequence[Part], cluster: Cluster, submission: Submission) -> list[Any]:
    """The jobs, one for each part."""
    from submitit import AutoExecutor
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    executor = AutoExecutor(
        submission.logs,
        cluster.name,
        slurm_max_num_timeout=TIMEOUTS,
        local_max_num_timeout=TIMEOUTS,
    )
    executor.update_parameters(name=submission.name, **cluster.parameters())
    try:
        with _outside_of_jobs(), executor.batch():
            return [executor.submit(part) for part in parts]
    except (FailedJobError, FailedSubmissionError) as error:
        reason = str(error).strip().rpartition("\n")[2]
        raise InvalidValueError(f"Slurm does not take the jobs: {reason}") from error


@contextmanager
def _outside_of_jobs() -> Iterator[None]:
    """Hide the variables of the job that this runs in, if any, from the ones to come."""
    from submitit.helpers import clean_env

    if "SLURM_JOB_ID" not in os.environ:
        yield
        return
    configuration = {k: v for k, v in os.environ.items() if k == "SLURM_CONF"}
    with clean_env():
        os.environ.update(configuration)
        yield


def _check_installed(cluster: Cluster) -> None:
    try:
        import submitit  # noqa: F401
    except ModuleNotFoundError as error:
        raise InvalidValueError(
            "A sweep on a cluster needs submitit, which is not installed: "
            "pip install 'captum-lie[cluster]'."
        ) from error
    if cluster.name == "slurm" and shutil.which("sbatch") is None:
        raise InvalidValueError(
            "There is no Slurm here (no sbatch): start the sweep on a machine that submits jobs, "
            "or choose --cluster local."
        )
