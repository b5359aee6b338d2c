"""Settings for the whole suite."""

import torch

# The tests' tensors are tiny: more threads only wait for one another.
torch.set_num_threads(1)
