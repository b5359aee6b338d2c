"""What installed adapters add to the demo's report, made beside the main job.

Adapters name a function under the entry point group :data:`ENTRY_POINTS`: from the demo's folder
to a section of its report, or None. Each runs in a process of its own where there are cores for it.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import torch

from captum_lie.cli.console import notes
from captum_lie.results import Section

ENTRY_POINTS = "captum_lie.demo"
#: What a process reads when it starts: how many threads it may take.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


@contextmanager
def added_sections(out: Path) -> Iterator[Callable[[], list[Section]]]:
    """Begin to make the sections of all installed adapters.

    Threads are shared out evenly meanwhile: processes that wait for each other's threads would slow
    one another down many times over.

    Yields:
        A function that waits for the sections; adapters that are not installed are named in a note.
    """
    entries = sorted(entry_points(group=ENTRY_POINTS))
    threads, cores = torch.get_num_threads(), os.cpu_count() or 1
    if cores == 1 or not entries:
        yield lambda: _present([_made(entry, out) for entry in entries])
        return
    share = max(1, cores // (1 + len(entries)))
    with ExitStack() as stack:
        context = multiprocessing.get_context("spawn")  # a fork would share torch's thread pool
        pool = stack.enter_context(ProcessPoolExecutor(len(entries), mp_context=context))
        stack.callback(pool.shutdown, cancel_futures=True)
        # They would draw their progress bars across ours.
        with _environment({**dict.fromkeys(_THREADS, str(share)), "TQDM_DISABLE": "1"}):
            futures: list[Future[Section | str | None]] = [
                pool.submit(_made, entry, out) for entry in entries
            ]
        torch.set_num_threads(share)
        stack.callback(torch.set_num_threads, threads)
        yield lambda: _present([future.result() for future in futures])


def _made(entry: EntryPoint, out: Path) -> Section | str | None:
    """An adapter's section, or what to say where it cannot be imported."""
    try:
        make = entry.load()
    except ImportError as error:
        return f"Install 'captum-lie[{entry.name}]' to see what it adds, too ({error})."
    section: Section | None = make(out)
    return section


def _present(made: list[Section | str | None]) -> list[Section]:
    for note in made:
        if isinstance(note, str):
            notes.print(note, markup=False, soft_wrap=True)
    return [section for section in made if isinstance(section, Section)]


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
