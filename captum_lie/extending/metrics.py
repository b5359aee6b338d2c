"""How a metric evaluates a model, and how it returns its number.

>>> import torch
>>> images, model = torch.rand(6, 3, 8, 8), torch.nn.Flatten()
>>> flipped = (call(model, images) - call(model, images.flip(-1))).abs().mean(1)
>>> result = summarise("flip", flipped.numpy(), unit="mean absolute difference", border="none")
>>> result.n, result.value > result.stderr > 0
(6, True)
"""

from captum_lie.metrics.streaming import call
from captum_lie.results.metrics import summarise

__all__ = ["call", "summarise"]
