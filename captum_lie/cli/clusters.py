"""Options of ``captum-lie sweep`` that hand the work to a cluster, and what is said of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, TypedDict

import typer

from captum_lie._compat import StrEnum
from captum_lie.cli.console import say
from captum_lie.errors import InvalidValueError
from captum_lie.studies.sweeping import Cluster, Submission

if TYPE_CHECKING:
    from typing_extensions import Unpack

_PANEL = "Clusters"


class ClusterName(StrEnum):
    local = "local"
    slurm = "slurm"


Name = Annotated[
    ClusterName | None,
    typer.Option(
        help="Hand the cells to Slurm, or to jobs on this machine; needs the extra 'cluster'.",
        rich_help_panel=_PANEL,
    ),
]
Array = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Tasks of the array job, among which the models are shared out; by default 8 on "
        "Slurm, 1 on this machine.",
        rich_help_panel=_PANEL,
    ),
]
Partition = Annotated[str | None, typer.Option(help="Partition of Slurm.", rich_help_panel=_PANEL)]
Gpus = Annotated[
    int | None,
    typer.Option(
        min=0, help="GPUs of a task, which computes a model on each.", rich_help_panel=_PANEL
    ),
]
Cpus = Annotated[int | None, typer.Option(min=1, help="CPUs of a task.", rich_help_panel=_PANEL)]
Time = Annotated[
    int,
    typer.Option(
        min=5,
        metavar="MINUTES",
        help="Time limit of a task; one that reaches it is queued again, and goes on.",
        rich_help_panel=_PANEL,
    ),
]
Slurm = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME[=VALUE]",
        help="Any other option of sbatch, such as account=vision. May be repeated.",
        rich_help_panel=_PANEL,
    ),
]
Wait = Annotated[
    bool,
    typer.Option(
        help="Wait for the jobs and write the tables; else run the same command again later.",
        rich_help_panel=_PANEL,
    ),
]


class _Given(TypedDict):
    """What each task of a cluster gets, None where nothing was said."""

    tasks: int | None
    partition: str | None
    gpus: int | None
    cpus: int | None


def parse_cluster(
    name: ClusterName | None,
    slurm: Sequence[str] | None,
    *,
    minutes: int,
    **given: Unpack[_Given],
) -> Cluster | None:
    """Where to hand the cells to, if anywhere.

    Args:
        slurm: options of ``sbatch``.
        minutes, given: see :class:`captum_lie.studies.sweeping.Cluster`.

    Raises:
        ValueError: options of a cluster without one.
    """
    options: dict[str, str | bool] = {}
    for text in slurm or ():
        option, equals, value = text.partition("=")
        options[option.lstrip("-")] = value if equals else True
    if name is not None:
        return Cluster(name.value, minutes=minutes, options=options, **given)
    if options or any(value is not None for value in given.values()):
        raise InvalidValueError(
            "--array, --partition, --gpus, --cpus and --slurm are for a cluster: say which one, "
            "--cluster slurm or --cluster local."
        )
    return None


def say_submitted(submission: Submission) -> None:
    """What was submitted, where it prints to, and how to collect it."""
    if submission.jobs:
        numbers = ", ".join(job.job_id for job in submission.jobs)
        said = f"Jobs {numbers} were submitted"
    elif submission.left():
        said = f"Jobs {submission.name} are at work in this folder already"
    else:
        return
    slurm = submission.cluster == "slurm"
    cancel = f"'scancel --name {submission.name}' cancels them. " if slurm else ""
    say(
        f"{said}; they print to {submission.logs}. {cancel}The same command again collects what "
        "they have computed."
    )
