"""A table with a row for every timm family, each measured in a process of its own with limits."""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import traceback
import warnings
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pandas as pd
import timm
import torch

Row = Any  # a frozen dataclass that begins with family and model, and has a status
Measure = Callable[[str, str], Row]


def print_table(
    kind: Callable[..., Row],
    smallest_model: Callable[[str], str],
    measure: Measure,
    *,
    description: str | None,
    good: str,
    seconds: float,
    gigabytes: float,
) -> None:
    """The command line of a table.

    Args:
        kind: makes a row from family, model and status.
        measure: a row from a model's name and its family.
        good: what a row with the status ``ok`` is called.
        seconds, gigabytes: default limits for each family.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--families", help="comma-separated modules of timm.models; default: all")
    parser.add_argument("--limit-seconds", type=float, default=seconds,
                        help=f"for each (default {seconds:g})")  # fmt: skip
    parser.add_argument("--limit-gigabytes", type=float, default=gigabytes,
                        help=f"for each (default {gigabytes:g})")  # fmt: skip
    parser.add_argument("--csv", type=Path, help="write the table here as well")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    families = options.families.split(",") if options.families else timm.list_modules()
    rows: list[Row] = []
    for family in families:
        try:
            failure = kind(family, smallest_model(family))
        except Exception as error:
            rows.append(kind(family, "", status=f"cannot be made: {reason(error)}"))
        else:
            rows.append(apart(failure, measure, options.limit_seconds, options.limit_gigabytes))
        print(rows[-1], flush=True)
        if options.csv:
            pd.DataFrame(rows).to_csv(options.csv, index=False)
    failed = [row.family for row in rows if row.status != "ok"]
    print(f"{len(rows) - len(failed)} of {len(rows)} {good}; not: {', '.join(failed) or 'none'}")


def apart(failure: Row, measure: Measure, limit_seconds: float, limit_gigabytes: float) -> Row:
    """A row measured in a process that ends when it takes too long; ``failure`` says why if so."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    limit = int(limit_gigabytes * 2**30)
    process = context.Process(target=_child, args=(failure, limit, sender, measure))
    process.start()
    sender.close()
    try:
        if not receiver.poll(limit_seconds):
            return replace(failure, status=f"more than {limit_seconds:.0f} s")
        return receiver.recv()
    except EOFError:
        process.join()
        return replace(failure, status=f"the process ended with code {process.exitcode}")
    finally:
        process.kill()
        process.join()


def _child(failure: Row, limit_bytes: int, connection: Connection, measure: Measure) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, limit_bytes))
    try:
        row = measure(failure.model, failure.family)
    except Exception as error:
        row = replace(failure, status=reason(error))
    connection.send(row)


def reason(error: Exception) -> str:
    """An error in one line, with its place."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    message = (str(error).strip() or "no message").splitlines()[0]
    return f"{type(error).__name__}: {message} ({Path(where.filename).name}:{where.lineno})"
