"""Scaled dot-product attention."""

from __future__ import annotations

from typing import Any

import torch

from captum_lie.core.differentiable.dual import below, run_of
from captum_lie.core.differentiable.registry import rule
from captum_lie.core.tangents.registry import aten


@rule(aten.scaled_dot_product_attention.default)
def attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    with below(run_of((query, key, value))):
        return aten._scaled_dot_product_attention_math.default.decompose(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )[0]
