"""Kinds of modules, by which plots are coloured (as in the paper's Figure 4)."""

from __future__ import annotations

import re

from torch import nn

# Names that the libraries share, in the order in which they are tried on the class name.
_PATTERNS: tuple[tuple[str, str], ...] = (
    (r"patchembed|embed", "patch embedding"),
    (r"pool|downsample|patchmerg|blur", "pooling/downsampling"),
    (r"norm", "normalisation"),
    (r"attention|attn|softmax", "attention"),
    (r"relu|gelu|silu|swish|mish|tanh|sigmoid|elu|act$|activation", "non-linearity"),
    (r"^conv|conv\d?d|convtranspose", "convolution"),
    (r"linear|mlp|glu", "MLP"),
)


def module_kind(module: nn.Module, *, is_leaf: bool) -> str:
    """The kind of a module by its class; containers are ``functional``, but for attention.

    Example:
        >>> module_kind(nn.Conv2d(3, 8, 3), is_leaf=True)
        'convolution'
        >>> module_kind(nn.Conv2d(3, 8, 3, stride=2), is_leaf=True)
        'pooling/downsampling'
    """
    if not is_leaf:  # the products of attention are functional code of its container
        attention = re.search("attention|attn", type(module).__name__.lower())
        return "attention" if attention else "functional"
    if isinstance(module, nn.Conv2d):
        stride = max(module.stride)
        if stride > 1:  # a patch embedding's patches do not overlap
            same = tuple(module.stride) == tuple(module.kernel_size)
            return "patch embedding" if same and stride >= 4 else "pooling/downsampling"
        return "convolution"
    name = type(module).__name__.lower()
    return next((kind for pattern, kind in _PATTERNS if re.search(pattern, name)), "functional")
