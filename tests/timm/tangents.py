"""The tangent engine beside PyTorch's forward mode, on one model from every timm family.

    python -m tests.timm.tangents --families vision_transformer,convnext --limit-seconds 120

The smallest variant of each module of ``timm.models`` runs with random weights on two random images
with two random tangents, in a process of its own with a memory limit. Printed are the largest
difference from ``torch.func.jvp`` relative to the largest derivative, in float32 and, where that
is above 1e-4, in float64; the time over that of ``vmap`` over ``jvp``; and the operations without a
rule of ours.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import resource
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

import pandas as pd
import timm
import torch
from torch import Tensor, nn

from captum_lie._autodiff import _duals, _stacked, _vmapped, differentiable
from captum_lie._validation import is_out_of_memory
from captum_lie.core.tangents import fallbacks
from tests.timm.families import _reason, input_size, make, smallest_model

TOLERANCE = 1e-4


@dataclass(frozen=True)
class Row:
    """One line of the table; ``ratio`` is the engine's time over that of PyTorch's method."""

    family: str
    model: str
    float32: float = math.nan
    float64: float = math.nan
    ratio: float = math.nan
    method: str = ""
    fallen: str = ""
    status: str = "ok"

    def __str__(self) -> str:
        numbers = f"{self.float32:8.1e} {self.float64:8.1e} {self.ratio:6.2f} {self.method:5}"
        return f"{self.family:27} {self.model:36} {numbers} {self.status}  {self.fallen}"


def derivatives(
    model: nn.Module, images: Tensor, tangents: Tensor
) -> tuple[Tensor, Tensor, float, str]:
    """By the engine, by PyTorch, the ratio of their times, and how PyTorch did it."""
    with torch.no_grad(), differentiable():
        start = time.perf_counter()
        ours = _stacked(model, (images,), (tangents,), None)
        middle = time.perf_counter()
        name, theirs = _by_torch(model, images, tangents)
        end = time.perf_counter()
    return ours, theirs, (middle - start) / (end - middle), name


def _by_torch(model: nn.Module, images: Tensor, tangents: Tensor) -> tuple[str, Tensor]:
    try:
        return "vmap", _vmapped(model, (images,), (tangents,), None)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        return "duals", _duals(model, (images,), (tangents,), None)


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Largest over largest: one that is zero everywhere has nothing to be compared with."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


def measure(name: str, family: str = "") -> Row:
    """Compare one model."""
    model = make(name)
    torch.manual_seed(0)
    images = torch.rand(2, *input_size(model))
    tangents = torch.randn(2, *images.shape)
    ours, theirs, ratio, method = derivatives(model, images, tangents)
    row = Row(family, name, difference(ours, theirs), ratio=ratio, method=method)
    with differentiable():
        row = replace(row, fallen=", ".join(sorted(fallbacks(model, (images,)))))
    if row.float32 <= TOLERANCE:
        return row
    exact = derivatives(model.double(), images.double(), tangents.double())
    row = replace(row, float64=difference(*exact[:2]))
    return row if row.float64 <= 1e-9 else replace(row, status="differs")


def measure_apart(
    family: str,
    limit_seconds: float,
    limit_gigabytes: float,
    run: Callable[[str, str], Row] = measure,
) -> Row:
    """:func:`measure` a family's smallest model in a process that ends when it takes too long."""
    try:
        failure = Row(family, smallest_model(family))
    except Exception as error:
        return Row(family, "", status=f"cannot be made: {_reason(error)}")
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(
        target=_child, args=(failure, int(limit_gigabytes * 2**30), sender, run)
    )
    process.start()
    sender.close()
    try:
        if not receiver.poll(limit_seconds):
            return replace(failure, status=f"more than {limit_seconds:.0f} s")
        row: Row = receiver.recv()
        return row
    except EOFError:
        process.join()
        return replace(failure, status=f"the process ended with code {process.exitcode}")
    finally:
        process.kill()
        process.join()


def _child(
    failure: Row, limit_bytes: int, connection: Connection, run: Callable[[str, str], Row]
) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, limit_bytes))
    try:
        row = run(failure.model, failure.family)
    except Exception as error:
        row = replace(failure, status=_reason(error))
    connection.send(row)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--families", help="comma-separated modules of timm.models; default: all")
    parser.add_argument("--limit-seconds", type=float, default=120, help="for each (default 120)")
    parser.add_argument("--limit-gigabytes", type=float, default=8, help="for each (default 8)")
    parser.add_argument("--csv", type=Path, help="write the table here as well")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    families = options.families.split(",") if options.families else timm.list_modules()
    rows: list[Row] = []
    for family in families:
        rows.append(measure_apart(family, options.limit_seconds, options.limit_gigabytes))
        print(rows[-1], flush=True)
        if options.csv:
            pd.DataFrame(rows).to_csv(options.csv, index=False)
    failed = [row.family for row in rows if row.status != "ok"]
    print(f"{len(rows) - len(failed)} of {len(rows)} agree; not: {', '.join(failed) or 'none'}")


if __name__ == "__main__":
    main()
