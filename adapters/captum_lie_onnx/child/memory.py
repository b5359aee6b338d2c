"""What a child process may take: as :mod:`captum_lie.studies.limits`, which it must not import."""

from __future__ import annotations

from pathlib import Path


def limit_memory(size: int) -> None:
    """Let this process take so many bytes beyond what it has by now.

    Call it after the imports, which take address space that says nothing about a file. Does nothing
    where the platform has no such limit.
    """
    try:
        import resource
    except ImportError:
        return
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        taken = pages * resource.getpagesize()
    except OSError:
        taken = 2 * 2**30
    resource.setrlimit(resource.RLIMIT_AS, (taken + size, taken + size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
