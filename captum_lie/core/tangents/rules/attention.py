"""Scaled dot-product attention, fused: no tensor of T · L · S elements is ever there at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from captum_lie.core.tangents.dual import Dual, run_of
from captum_lie.core.tangents.registry import aten, rule

#: Half precision is left to the composite operation, which computes parts in single precision.
FULL_PRECISION = (torch.float32, torch.float64)


@rule(aten.scaled_dot_product_attention.default)
def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **kwargs: Any,  # scale, enable_gqa
) -> Any:
    """With ``S = c q kᵀ + mask``, ``P = softmax S``, ``O = P v`` and ``r = Σ P Ṡ``:

    ``Ṡ = c (q̇ kᵀ + q k̇ᵀ)``, ``Ȯ = (P Ṡ) v - r O + P v̇``.
    """
    batch = query.shape[:-2]
    if (
        dropout_p > 0
        or isinstance(attn_mask, Dual)
        or key.shape[:-2] != batch
        or value.shape[:-2] != batch
        or query.dtype not in FULL_PRECISION
    ):
        attn_mask = additive(attn_mask, query.dtype)
        return aten._scaled_dot_product_attention_math.default.decompose(
            query, key, value, attn_mask, dropout_p, is_causal, **kwargs
        )[0]
    run = run_of((query, key, value))
    scale = kwargs.get("scale")
    c = query.shape[-1] ** -0.5 if scale is None else scale
    q, k, v = (_rows(x) for x in (query, key, value))
    k0, v0 = primal_row(k), primal_row(v)
    q0 = primal_row(q) * c
    weights = _weights(q0, k0, attn_mask, is_causal, batch)
    out = q0.new_empty((run.rows, *q0.shape[:2], v0.shape[-1]))
    torch.bmm(weights, v0, out=out[0])
    scores = torch.empty_like(weights)
    for i in range(1, run.rows):
        row = out[i]
        moved = _score_tangent(q, k, q0, k0, c, i, scores)
        if moved:
            scores.mul_(weights)
            torch.bmm(scores, v0, out=row)
            row.addcmul_(out[0], scores.sum(-1, keepdim=True), value=-1)
            if v.ndim == 4:
                row.baddbmm_(weights, v[i])
        else:
            torch.bmm(weights, v[i], out=row)
    return Dual(out.view(run.rows, *batch, *out.shape[-2:]), run)


def additive(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """A mask of truth values as what is added to the scores, as the composite operation takes it.

    Example:
        >>> additive(torch.tensor([True, False]), torch.float32)
        tensor([0., -inf])
    """
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, -torch.inf)


def _score_tangent(
    q: Tensor, k: Tensor, q0: Tensor, k0: Tensor, c: float, i: int, out: Tensor
) -> bool:
    """``Ṡ`` of one tangent; whether there is any."""
    if q.ndim == 4:
        torch.baddbmm(out, q[i], k0.mT, beta=0, alpha=c, out=out)
        if k.ndim == 4:
            out.baddbmm_(q0, k[i].mT)
    elif k.ndim == 4:
        torch.bmm(q0, k[i].mT, out=out)
    return q.ndim == 4 or k.ndim == 4


def _rows(x: Tensor) -> Tensor:
    """``[1+T, B, L, E]`` of a dual, ``[B, L, E]`` of a constant."""
    if isinstance(x, Dual):
        return x.stack.reshape(len(x.stack), -1, *x.shape[-2:])
    return x.reshape(-1, *x.shape[-2:])


def primal_row(x: Tensor) -> Tensor:
    return x[0] if x.ndim == 4 else x


def _weights(
    q: Tensor, k: Tensor, mask: Tensor | None, is_causal: bool, batch: torch.Size
) -> Tensor:
    scores = torch.bmm(q, k.mT)
    full = scores.view(*batch, *scores.shape[-2:])
    if is_causal:
        allowed = torch.ones(full.shape[-2:], dtype=torch.bool, device=q.device).tril()
        full.masked_fill_(~allowed, -torch.inf)
    if mask is not None:
        if mask.dtype == torch.bool:
            full.masked_fill_(~mask, -torch.inf)
        else:
            full.add_(mask)
    if mask is None:
        return scores.softmax(-1)
    safe: Tensor = torch._safe_softmax(scores, -1)  # rows without any key have weights of zero
    return safe
