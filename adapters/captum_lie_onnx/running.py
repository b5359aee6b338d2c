"""How a file is run: threads, optimisation of the graph, and limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypedDict, get_args

from captum_lie.extending.checks import one_of
from captum_lie_onnx.limits import Limits

Optimization = Literal["all", "extended", "basic", "none"]


class RunOptions(TypedDict, total=False):
    """:class:`Running` as keywords."""

    threads: int | None
    optimization: Optimization
    limits: Limits | None


@dataclass(frozen=True)
class Running:
    """How a file is run.

    Attributes:
        threads: of onnxruntime; None: as many as PyTorch takes.
        optimization: of the graph: ``"all"``, ``"extended"``, ``"basic"`` or ``"none"``.
        limits: open the file in a child process with these limits on memory and time; None: in this
            process, for files that are trusted.

    Raises:
        ValueError: an unknown optimisation.

    Example:
        >>> Running(threads=1).optimization
        'all'
    """

    threads: int | None = None
    optimization: Optimization = "all"
    limits: Limits | None = None

    def __post_init__(self) -> None:
        one_of("optimization", self.optimization, get_args(Optimization))
