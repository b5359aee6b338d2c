"""Settings of the whole process, held by one thread at a time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from threading import RLock


class Turns:
    """A scope with settings of the whole process; threads take turns in it.

    The first scope of a thread makes the settings, its last one undoes them, in whichever order
    scopes that nest or overlap end: afterwards all is as it was before. Another thread waits until
    then.

    Args:
        settings: makes the settings, and undoes them on leaving.
        within: another scope with which the turns are shared: whoever has one may enter the other,
            in any order.

    Example:
        >>> from contextlib import contextmanager
        >>> @contextmanager
        ... def loudly():
        ...     print("on")
        ...     yield
        ...     print("off")
        >>> loud = Turns(loudly)
        >>> with loud, loud:
        ...     print("working")
        on
        working
        off
    """

    def __init__(
        self, settings: Callable[[], AbstractContextManager[None]], within: Turns | None = None
    ) -> None:
        self._settings = settings
        self._turn: RLock = RLock() if within is None else within._turn
        self._scopes = 0
        self._made = ExitStack()

    def __enter__(self) -> None:
        self._turn.acquire()
        try:
            if not self._scopes:
                self._made.enter_context(self._settings())
        except BaseException:
            self._turn.release()
            raise
        self._scopes += 1

    def __exit__(self, *_: object) -> None:
        self._scopes -= 1
        try:
            if not self._scopes:
                self._made.close()
        finally:
            self._turn.release()
