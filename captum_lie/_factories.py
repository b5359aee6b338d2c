"""Functions that users name as ``FILE.py:function``."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from captum_lie.errors import InvalidValueError, first_line


def find_factory(spec: str) -> Callable[..., Any]:
    """The function of ``FILE.py:function``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file fails to run, or has no such function.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     file = Path(folder) / "mymodel.py"
        ...     _ = file.write_text("from torch import nn\\ndef build(): return nn.Flatten()")
        ...     find_factory(f"{file}:build")()
        Flatten(start_dim=1, end_dim=-1)
    """
    file, _, function = spec.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {file} (from {spec}).")
    module_spec = importlib.util.spec_from_file_location(path.stem, path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    sys.path.insert(0, str(path.parent.resolve()))  # a script finds what lies beside it
    try:
        module_spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise InvalidValueError(f"{file} failed to run: {described(error)}") from error
    finally:
        sys.path.pop(0)
    factory: Callable[..., Any] | None = getattr(module, function, None)
    if not callable(factory):
        names = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise InvalidValueError(
            f"{file} has no function {function!r}. It has: {', '.join(names) or 'none'}."
        )
    return factory


def described(error: BaseException) -> str:
    """An error's type and the first line of what it says."""
    kind, said = type(error).__name__, first_line(error)
    return kind if said == kind else f"{kind}: {said}"
