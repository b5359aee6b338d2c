"""The numerical core, below the measures."""
