"""Settings for the whole suite."""

from importlib.util import find_spec

import torch

# Benchmarks are programs, not tests; the adapter's tests need what it adapts.
collect_ignore_glob = ["benchmarks/*"] + ([] if find_spec("timm") else ["timm/*"])

# The tests' tensors are tiny: more threads only wait for one another.
torch.set_num_threads(1)
