"""Layouts of the queries, keys and values of attention: tokens of each head."""

from __future__ import annotations

from torch import Tensor, nn

from captum_lie.layouts import UNKNOWN, Evidence, Layout, register, token_layouts
from captum_lie_timm.classes import Classes, classes

NORMS: Classes = (
    nn.LayerNorm,
    *classes("layers.norm", "RmsNorm", "RmsNormFp32", "SimpleNorm", "SimpleNormFp32"),
)


def heads(module: nn.Module, x: Tensor, evidence: Evidence) -> Layout | None:
    """Rule of modules that act on ``[N, heads, tokens, C]``, fewer heads than tokens."""
    if x.ndim != 4 or x.shape[1] >= x.shape[2]:
        return UNKNOWN
    tokens = next(token_layouts("tokens", x.shape[2], evidence), None)
    return UNKNOWN if tokens is None else Layout("heads", tokens.prefix, tokens.grid)


def queries_and_keys(module: nn.Module, x: Tensor, evidence: Evidence) -> Layout | None:
    """Rule within attention over all tokens: its norms of rank four act on each head.

    Elsewhere a norm of that rank may act on windows, ``[N, windows, tokens, C]``.
    """
    is_norm = isinstance(module, NORMS)
    return heads(module, x, evidence) if is_norm and x.ndim == 4 else None


register(
    *classes("models.vision_transformer", "Attention"),
    *classes("layers.attention", "AttentionRope"),
    *classes("models.eva", "EvaAttention"),
    inside=queries_and_keys,
)
register(*classes("models.coat", "ConvRelPosEnc"), input=heads, output=heads)
