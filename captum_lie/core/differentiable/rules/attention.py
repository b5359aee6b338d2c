"""Scaled dot-product attention, a few images at a time: no map of all weights is ever kept.

With ``S = c q kᵀ``, ``P = softmax S``, ``O = P v`` and, along each tangent, ``A = Ṡ - Σ P Ṡ``:

    Ṡ = c (q̇ kᵀ + q k̇ᵀ),   Ṗ = P A,   Ȯ = Ṗ v + P v̇.

From the gradients G of O and H of Ȯ, with ``B = H vᵀ``, those of Ṡ and S are

    H_S = P (B - Σ P B),   G_S = P (G vᵀ + H v̇ᵀ) + H_S A, less P times its sum over the keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from captum_lie.core.differentiable.dual import Dual, below, run_of
from captum_lie.core.differentiable.registry import rule
from captum_lie.core.tangents.registry import aten
from captum_lie.core.tangents.rules.attention import FULL_PRECISION, additive

#: Bytes of the weights of the images that go together on a CPU: a few such maps fit its cache.
CPU_BYTES = 2**18


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
    plain = attn_mask is None and dropout_p == 0 and not is_causal
    alike = query.ndim == 4 and query.shape[:2] == key.shape[:2] == value.shape[:2]
    moving = [x for x in (query, key, value) if isinstance(x, Dual)]
    run = run_of((query, key, value, attn_mask))
    if plain and alike and len(moving) == 3 and query.dtype in FULL_PRECISION:
        given = kwargs.get("scale")
        scale = query.shape[-1] ** -0.5 if given is None else given
        tangents = [t for x in moving for t in x.tangents]
        out, *turned = _Attention.apply(scale, *(x.primal for x in moving), *tangents)
        return Dual(out, turned, run)
    attn_mask = additive(attn_mask, query.dtype)
    with below(run):
        return aten._scaled_dot_product_attention_math.default.decompose(
            query, key, value, attn_mask, dropout_p, is_causal, **kwargs
        )[0]


class _Attention(torch.autograd.Function):
    """``O`` and ``Ȯ`` of queries, keys and values ``[N, heads, L, E]`` and T tangents of each."""

    @staticmethod
    def forward(
        ctx: Any, scale: float, q: Tensor, k: Tensor, v: Tensor, *tangents: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.scale = scale
        ctx.save_for_backward(q, k, v, *tangents)
        count = len(tangents) // 3
        # As the model will read it: the heads of a token side by side.
        shape = (q.shape[0], q.shape[2], q.shape[1], v.shape[3])
        results = [q.new_empty(shape).transpose(1, 2) for _ in range(1 + count)]
        for rows in _chunks(q, k):
            q0, k0, v0, *moved = _rows(rows, (q, k, v, *tangents))
            weights, scores = _weights(scale, q0, k0, moved)
            parts = [torch.bmm(weights, v0)]
            for score, dv in zip(scores, moved[2 * count :], strict=True):
                parts.append(torch.bmm(score.mul_(weights), v0).baddbmm_(weights, dv))
            for result, part in zip(results, parts, strict=True):
                result[rows] = part.view_as(result[rows])
        return tuple(results)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *turned: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        results = [torch.empty_like(x) for x in saved]
        for rows in _chunks(*saved[:2]):
            parts = _pulled_back(ctx.scale, _rows(rows, saved), _rows(rows, (grad, *turned)))
            for result, part in zip(results, parts, strict=True):
                result[rows] = part.view_as(result[rows])
        return None, *results


def _pulled_back(
    scale: float, inputs: Sequence[Tensor], gradients: Sequence[Tensor]
) -> list[Tensor]:
    """The gradients of a chunk's queries, keys and values, then of their tangents."""
    q, k, v, *moved = inputs
    g, *turned = gradients
    count = len(turned)
    dqs, dks, dvs = (moved[i * count : (i + 1) * count] for i in range(3))
    weights, scores = _weights(scale, q, k, moved)
    of_scores = torch.bmm(g, v.mT)
    for h, dv in zip(turned, dvs, strict=True):
        of_scores.baddbmm_(h, dv.mT)
    of_scores.mul_(weights)
    of_v = torch.bmm(weights.mT, g)
    of_scores_moved = []
    for h, score in zip(turned, scores, strict=True):
        b = torch.bmm(h, v.mT)
        b.sub_((weights * b).sum(-1, keepdim=True)).mul_(weights)
        of_scores.addcmul_(b, score)
        of_v.baddbmm_(score.mul_(weights).mT, h)
        of_scores_moved.append(b.mul_(scale))
    of_scores.addcmul_(weights, of_scores.sum(-1, keepdim=True), value=-1).mul_(scale)
    of_q, of_k = torch.bmm(of_scores, k), torch.bmm(of_scores.mT, q)
    for b, dq, dk in zip(of_scores_moved, dqs, dks, strict=True):
        of_q.baddbmm_(b, dk)
        of_k.baddbmm_(b.mT, dq)
    return [
        of_q,
        of_k,
        of_v,
        *(torch.bmm(b, k) for b in of_scores_moved),
        *(torch.bmm(b.mT, q) for b in of_scores_moved),
        *(torch.bmm(weights.mT, h) for h in turned),
    ]


def _weights(
    scale: float, q: Tensor, k: Tensor, moved: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """``P``, and ``A`` for each tangent."""
    weights = torch.bmm(q, k.mT).mul_(scale).softmax(-1)
    count = len(moved) // 3
    centred = []
    for dq, dk in zip(moved[:count], moved[count : 2 * count], strict=True):
        score = torch.bmm(dq, k.mT).baddbmm_(q, dk.mT).mul_(scale)
        centred.append(score.sub_((weights * score).sum(-1, keepdim=True)))
    return weights, centred


def _chunks(q: Tensor, k: Tensor) -> Iterator[slice]:
    """Consecutive images."""
    images, heads, length, _ = q.shape
    size = images
    if q.device.type == "cpu":
        size = max(1, CPU_BYTES // (heads * length * k.shape[2] * q.element_size()))
    return (slice(start, start + size) for start in range(0, images, size))


def _rows(rows: slice, tensors: Sequence[Tensor]) -> list[Tensor]:
    """``[n · heads, L, E]`` of a chunk of images."""
    return [x[rows].reshape(-1, *x.shape[2:]) for x in tensors]
