"""Models by name; the public name of :mod:`captum_lie.studies.models`."""

from captum_lie.studies.models import (
    ENTRY_POINTS,
    check_runs,
    find_factory,
    has_untrained_twin,
    load_model,
)

__all__ = ["ENTRY_POINTS", "check_runs", "find_factory", "has_untrained_twin", "load_model"]
