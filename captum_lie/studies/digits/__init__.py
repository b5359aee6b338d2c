"""Rotated digits: training with and without a rotation penalty (arXiv 2210.02984, App. D.6)."""

from captum_lie.studies.digits.study import DigitsOptions, rotated_digits
from captum_lie.studies.digits.training import Training

__all__ = ["DigitsOptions", "Training", "rotated_digits"]
