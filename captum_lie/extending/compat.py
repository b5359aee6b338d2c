"""What the oldest supported Python lacks."""

from captum_lie._compat import StrEnum, tomllib

__all__ = ["StrEnum", "tomllib"]
