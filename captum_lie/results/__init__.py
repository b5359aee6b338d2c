"""What measurements return: records of numbers, with their means, errors and tables."""

from captum_lie.results.lee import LeeResult

__all__ = ["LeeResult"]
