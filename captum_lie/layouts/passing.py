"""Modules that return their input as it is, so that they contribute exactly nothing."""

from __future__ import annotations

from torch import nn

_PASSING: set[type[nn.Module]] = set()


def register_passing(*classes: type[nn.Module]) -> None:
    """Say that modules of these classes return their input as it is, in evaluation mode.

    Their contributions are zero whatever the layout of what passes, so nothing that they get need
    be known.

    Args:
        classes: also hold for their subclasses, unless these have a ``forward`` of their own.

    Example:
        >>> class StochasticDepth(nn.Module):
        ...     def forward(self, x):
        ...         return x if not self.training else x * (torch.rand(len(x), 1) < 0.9)
        >>> passes_on(StochasticDepth())
        False
        >>> register_passing(StochasticDepth)
        >>> passes_on(StochasticDepth())
        True
    """
    _PASSING.update(classes)


def passes_on(module: nn.Module) -> bool:
    """Whether a module is known to return its input as it is, in evaluation mode.

    Example:
        >>> passes_on(nn.Dropout(0.5)), passes_on(nn.ReLU())
        (True, False)
    """
    cls = type(module)
    return any(base in _PASSING and cls.forward is base.forward for base in cls.__mro__)


register_passing(
    *(nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d),
    *(nn.AlphaDropout, nn.FeatureAlphaDropout),
)
