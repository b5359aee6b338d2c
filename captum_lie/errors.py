"""What a caller can mend, told apart from what would be a bug of ours.

Every check on what users pass in raises one of these, and so do adapters. Each is also the built-in
error that fits, so that ``except ValueError`` works as anywhere; command lines print a
:class:`UserError` as one line and let everything else show its traceback.
"""

from __future__ import annotations

__all__ = [
    "DamagedFileError",
    "InvalidTypeError",
    "InvalidValueError",
    "UnknownModelError",
    "UnsupportedModelError",
    "UserError",
    "first_line",
]


class UserError(Exception):
    """Something that the caller can mend: the message says the cause, what it got, the remedy.

    Example:
        >>> from captum_lie import get_group
        >>> try:
        ...     get_group("rotatoin")
        ... except UserError as error:
        ...     print(isinstance(error, ValueError), str(error)[-24:])
        True Did you mean 'rotation'?
    """


class InvalidValueError(UserError, ValueError):
    """An argument of the right type whose value cannot be used."""


class InvalidTypeError(UserError, TypeError):
    """An argument of a type that cannot be used."""


class UnsupportedModelError(UserError, RuntimeError):
    """A model that runs, or should, but cannot be loaded or differentiated."""


class DamagedFileError(UserError, RuntimeError):
    """A file of this installation that is there but cannot be used."""


class UnknownModelError(UserError, LookupError):
    """No model goes by that name."""


def first_line(error: BaseException) -> str:
    """The first line of what an error says; its type, where it says nothing.

    Example:
        >>> first_line(ValueError("bad shape\\nand how it came about")), first_line(KeyError())
        ('bad shape', 'KeyError')
    """
    return (str(error).strip() or type(error).__name__).splitlines()[0]
