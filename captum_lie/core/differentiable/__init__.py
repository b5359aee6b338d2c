"""Forward mode for a few tangents at once that reverse mode can differentiate again.

The engine of :mod:`captum_lie.core.tangents` is the faster one where values are all that is asked
for. Here autograd records what happens to the tensor and to its tangents, so that a function of
the derivative has a gradient with regard to the parameters.

PyTorch's own forward mode cannot be used so: reverse mode over it refuses softmax and attention,
and gives layer and batch normalisation a wrong gradient, silently, since it takes their statistics
to be constants (2.14).
"""

from captum_lie.core.differentiable.dual import Dual
from captum_lie.core.differentiable.engine import pushforward

__all__ = ["Dual", "pushforward"]
