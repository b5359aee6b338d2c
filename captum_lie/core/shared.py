"""Settings of the whole process, held for as long as any thread needs them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from threading import Lock


class Shared:
    """A scope with settings of the whole process, in which any number of threads may be at once.

    The first scope of all makes the settings, the last one undoes them, in whichever order they
    end. (Where threads would disturb one another: :class:`captum_lie.core.turns.Turns`.)

    Args:
        settings: makes the settings, and undoes them on leaving.

    Example:
        >>> from contextlib import contextmanager
        >>> @contextmanager
        ... def loudly():
        ...     print("on")
        ...     yield
        ...     print("off")
        >>> loud = Shared(loudly)
        >>> with loud, loud:
        ...     print("working")
        on
        working
        off
    """

    def __init__(self, settings: Callable[[], AbstractContextManager[None]]) -> None:
        self._settings = settings
        self._lock = Lock()
        self._scopes = 0
        self._made = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._scopes:
                self._made.enter_context(self._settings())
            self._scopes += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._scopes -= 1
            if not self._scopes:
                self._made.close()
