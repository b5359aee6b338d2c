"""Checks on what users pass in: each error says the cause, what it got, and the remedy.

All raise classes of :mod:`captum_lie.errors`, which command lines print as one line.
"""

from captum_lie.core.validation import (
    check_eval_mode,
    check_images,
    check_inputs,
    check_output,
    one_of,
)

__all__ = ["check_eval_mode", "check_images", "check_inputs", "check_output", "one_of"]
