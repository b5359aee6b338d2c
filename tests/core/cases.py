"""Operations as functions of one image batch ``x`` and what hypothesis draws for their options."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

Draw = Callable[[Any], Any]
Case = Callable[[Tensor, Draw], Tensor]


def constant(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def positive(x: Tensor) -> Tensor:
    return x.square() + 0.1


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu6": lambda x: F.relu6(4 * x),
    "hardtanh": lambda x: F.hardtanh(x, -0.5, 0.7),
    "leaky_relu": lambda x: F.leaky_relu(x, 0.2),
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "mish": F.mish,
    "hardswish": lambda x: F.hardswish(3 * x),
    "hardsigmoid": lambda x: F.hardsigmoid(3 * x),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "elu": F.elu,
    "selu": F.selu,
    "celu": lambda x: F.celu(x, 0.7),
    "softplus": F.softplus,
    "softsign": F.softsign,
    "logsigmoid": F.logsigmoid,
    "prelu": lambda x: F.prelu(x, constant(x.shape[1])),
    "threshold": lambda x: F.threshold(x, 0.1, 2.0),
    "hardshrink": F.hardshrink,
    "softshrink": F.softshrink,
    "exp": torch.exp,
    "log": lambda x: positive(x).log(),
    "sqrt": lambda x: positive(x).sqrt(),
    "rsqrt": lambda x: positive(x).rsqrt(),
    "reciprocal": lambda x: positive(x).reciprocal(),
    "abs": torch.abs,
    "sin": torch.sin,
    "erf": torch.erf,
    "clamp": lambda x: x.clamp(-0.5, 0.5),
    "clamp_min": lambda x: x.clamp(min=0.2),
    "clamp_tensor": lambda x: x.clamp(max=constant(x.shape[-1], seed=2000)),  # no tie with x
    "square": torch.square,
    "pow_0": lambda x: x**0,
    "pow_3": lambda x: x**3,
    "pow_half": lambda x: positive(x) ** 0.5,
    "neg": torch.neg,
    "round": lambda x: x + x.round(),
    "sign": lambda x: x * x.sign(),
}

IN_PLACE: dict[str, Callable[[Tensor], object]] = {
    "relu_": torch.relu_,
    "relu6_": lambda x: F.relu6(x.mul_(4), inplace=True),
    "hardtanh_": lambda x: F.hardtanh_(x, -0.5, 0.7),
    "leaky_relu_": lambda x: F.leaky_relu_(x, 0.2),
    "silu_": lambda x: F.silu(x, inplace=True),
    "mish_": lambda x: F.mish(x, inplace=True),
    "hardswish_": lambda x: F.hardswish(x, inplace=True),
    "hardsigmoid_": lambda x: F.hardsigmoid(x, inplace=True),
    "sigmoid_": torch.sigmoid_,
    "tanh_": torch.tanh_,
    "elu_": F.elu_,
    "clamp_": lambda x: x.clamp_(-0.5, 0.5),
    "exp_": torch.exp_,
    "pow_": lambda x: x.pow_(2),
    "abs_": torch.abs_,
    "neg_": torch.neg_,
    "add_": lambda x: x.add_(1.5),
    "add_constant_": lambda x: x.add_(constant(x.shape[-1]), alpha=2),
    "add_moving_": lambda x: x.add_(x.sin(), alpha=-0.5),
    "sub_": lambda x: x.sub_(x.cos()),
    "mul_": lambda x: x.mul_(0.7),
    "mul_constant_": lambda x: x.mul_(constant(x.shape[-1])),
    "mul_moving_": lambda x: x.mul_(x.mean((-2, -1), keepdim=True)),
    "div_": lambda x: x.div_(positive(x)),
    "copy_": lambda x: x.copy_(x.flip(-1).sin()),
    "copy_constant_": lambda x: x[..., :1].copy_(constant(1)),
    "fill_": lambda x: x[:, :1].fill_(0.3),
    "fill_moving_": lambda x: x[:, :1].fill_(x.sum()),
    "zero_": lambda x: x[..., 0].zero_(),
    "masked_fill_": lambda x: x.masked_fill_(constant(*x.shape) > 0, 0.5),
    "round_": lambda x: x[..., :1].round_(),
    "setitem": lambda x: x.__setitem__((slice(None), 0), x[:, -1] * 2),
    "setitem_list": lambda x: x.__setitem__((slice(None), [0, -1]), x[:, :1].exp()),
    "setitem_mask": lambda x: x.__setitem__(x > 0.5, 0.5),
    "addcmul_": lambda x: x.addcmul_(x.sin(), constant(x.shape[-1]), value=0.5),
    "lerp_": lambda x: x.lerp_(x.sin(), 0.3),
    "index_add_": lambda x: x.index_add_(1, torch.tensor([0]), x[:, :1].sin()),
    "dropout_": lambda x: F.dropout(x, 0.5, False, inplace=True).mul_(2),
    "multiply_": lambda x: x.multiply_(x.sin()),
    "clip_": lambda x: x.clip_(-0.5, 0.5),
    "square_": lambda x: x.square_(),
    "clamp_part_": lambda x: x[..., ::2].clamp_(0, 1),
}

TWO: dict[str, Callable[[Any, Any], Tensor]] = {
    "add": lambda a, b: a + b,
    "add_alpha": lambda a, b: torch.add(a, b, alpha=-1.5),
    "sub": lambda a, b: a - b,
    "rsub": lambda a, b: torch.rsub(a, b, alpha=2),
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / (b * b + 0.5),
    "where": lambda a, b: torch.where(constant(4) > 0, a[..., :1], b[..., :1]),
    "maximum": torch.maximum,
    "atan2": torch.atan2,
    "lerp": lambda a, b: torch.lerp(a, a + b, 0.3),
    "addcmul": lambda a, b: torch.addcmul(a * b, a, b, value=0.5),
    "hypot": torch.hypot,
    "masked_fill": lambda a, b: (a + b).masked_fill(constant(1, 1) > -9, 2.0) + a,
    "cat": lambda a, b: torch.cat(torch.broadcast_tensors(a, b), -1),
    "stack": lambda a, b: torch.stack(torch.broadcast_tensors(a, b), -1),
}


def _matrices(x: Tensor) -> tuple[Tensor, Tensor]:
    """``[N, C, H, W]`` and ``[N, C, W, 3]``."""
    return x, x.mT @ x[..., :1] @ constant(1, 3)


PRODUCTS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda x: F.linear(x, constant(5, x.shape[-1]), constant(5)),
    "linear_vector": lambda x: F.linear(x[0, 0, 0], constant(5, x.shape[-1]), constant(5)),
    "linear_transposed": lambda x: F.linear(x.mT, constant(5, x.shape[-2])),
    "linear_moving_weight": lambda x: F.linear(x, x[0, 0], x[0, 0, :, 0]),
    "matmul_both": lambda x: torch.matmul(*_matrices(x)),
    "matmul_right": lambda x: x @ constant(x.shape[-1], 3),
    "matmul_right_batched": lambda x: x @ constant(2, 1, 1, x.shape[-1], 3),
    "matmul_left": lambda x: constant(3, x.shape[-2]) @ x,
    "matmul_left_batched": lambda x: constant(2, 1, 1, 3, x.shape[-2]) @ x,
    "matmul_vector": lambda x: x @ constant(x.shape[-1]),
    "vector_matmul": lambda x: constant(x.shape[-2]) @ x,
    "moving_vector_matmul": lambda x: x[0, 0, 0] @ constant(2, x.shape[-1], 3),
    "matmul_moving_vector": lambda x: constant(2, 3, x.shape[-1]) @ x[0, 0, 0],
    "vector_vector": lambda x: x[0, 0, 0] @ constant(x.shape[-1]),
    "moving_vectors": lambda x: x[0, 0, 0] @ x[0, 0, -1],
    "moving_matrix_vector": lambda x: x @ x[0, 0, 0],
    "mm": lambda x: torch.mm(x[0, 0], x[0, 0].T),
    "bmm": lambda x: torch.bmm(x[0], x[0].mT),
    "bmm_left": lambda x: torch.bmm(constant(x.shape[1], 2, x.shape[2]), x[0]),
    "bmm_right": lambda x: torch.bmm(x[0], constant(x.shape[1], x.shape[3], 2)),
    "baddbmm": lambda x: torch.baddbmm(x[0, :, :, :1], x[0], x[0].mT, beta=0.5, alpha=2),
    "addmm": lambda x: torch.addmm(constant(x.shape[-2]), x[0, 0], x[0, 0].T, alpha=0.5),
    "einsum": lambda x: torch.einsum("nchw,nkhw->nck", x, x.sin()),
    "einsum_constant": lambda x: torch.einsum("nchw,cd->ndhw", x, constant(x.shape[1], 3)),
    "tensordot": lambda x: torch.tensordot(x, constant(x.shape[1], 2), dims=([1], [0])),
    "outer": lambda x: torch.outer(x[0, 0, 0], x[0, 0, -1]),
}

SHAPES: dict[str, Callable[[Tensor], Tensor]] = {
    "view": lambda x: x.contiguous().view(-1, x.shape[-1]),
    "reshape": lambda x: x.reshape(x.shape[0], -1),
    "reshape_transposed": lambda x: x.transpose(0, 2).reshape(-1),
    "flatten": lambda x: x.flatten(1, 2),
    "unflatten": lambda x: x.unflatten(-1, (1, -1)),
    "permute": lambda x: x.permute(2, 0, -1, 1),
    "transpose": lambda x: x.transpose(-1, 1),
    "movedim": lambda x: x.movedim(1, -1),
    "squeeze": lambda x: x[:, :1].squeeze(1),
    "squeeze_all": lambda x: x[:1, :, :, :1].squeeze(),
    "squeeze_several": lambda x: x[:, :1, :1].squeeze((1, -2)),
    "unsqueeze": lambda x: x.unsqueeze(-1).unsqueeze(0).unsqueeze(-6),
    "expand": lambda x: x[:, :1].expand(2, -1, 3, -1, -1),
    "expand_as": lambda x: x[:, :1].expand_as(x),
    "repeat": lambda x: x.repeat(2, 1, 1, 3),
    "repeat_interleave": lambda x: x.repeat_interleave(2, 1),
    "split": lambda x: x.split(1, -1)[-1],
    "split_sizes": lambda x: x.split([1, x.shape[2] - 1], 2)[0],
    "chunk": lambda x: torch.cat(x.chunk(2, -1)[::-1], -1),
    "unbind": lambda x: x.unbind(1)[-1],
    "tensor_split": lambda x: x.tensor_split(2, 0)[0],
    "narrow": lambda x: x.narrow(-1, 0, 1),
    "select": lambda x: x.select(-2, -1),
    "slices": lambda x: x[..., -2:, ::2],
    "cat": lambda x: torch.cat([constant(1, *x.shape[1:]), x, x * 2], 0),
    "cat_negative": lambda x: torch.cat([x, constant(*x.shape[:-1], 2)], -1),
    "cat_empty": lambda x: torch.cat([x.new_zeros(0), x], 1),
    "stack": lambda x: torch.stack([x, constant(*x.shape)], -1),
    "roll": lambda x: x.roll((1, -2), (2, -1)),
    "roll_flat": lambda x: x.roll(2),
    "flip": lambda x: x.flip((1, -1)),
    "rot90": lambda x: torch.rot90(x, 1, (2, 3)),
    "pixel_shuffle": lambda x: F.pixel_shuffle(x.repeat(1, 4, 1, 1), 2),
    "pixel_unshuffle": lambda x: F.pixel_unshuffle(x.repeat(1, 1, 2, 2), 2),
    "channel_shuffle": lambda x: F.channel_shuffle(x.repeat(1, 2, 1, 1), 2),
    "unfold": lambda x: F.unfold(x, 2, padding=1),
    "fold": lambda x: F.fold(F.unfold(x, 2, padding=1), x.shape[2:], 2, padding=1),
    "windows": lambda x: x.unfold(-1, 2, 1),
    "index": lambda x: x[:, :, [0, -1, 0]],
    "index_pair": lambda x: x[:, :, [0, -1], [0, 0]],
    "index_gap": lambda x: x[:, [0, -1, 0], :, [0, -1, 0]],
    "index_gap_first": lambda x: x[[[0], [-1]], :, [0, -1, 0]],
    "index_broadcast": lambda x: x[:, :, [[0], [-1]], [0, -1, 0]],
    "index_mask": lambda x: x[:, :, constant(*x.shape[2:]) > 0],
    "index_own_mask": lambda x: x[x > 0],
    "index_select": lambda x: x.index_select(-1, torch.tensor([0, -1 % x.shape[-1]])),
    "gather": lambda x: x.gather(1, torch.zeros(x.shape, dtype=torch.int64)),
    "take_along_dim": lambda x: torch.take_along_dim(x, x.argsort(-1), -1),
    "masked_fill": lambda x: x.masked_fill(constant(*x.shape[2:]) > 0, -1.0),
    "tril": lambda x: x.tril(),
    "diagonal": lambda x: x.diagonal(0, -2, -1),
    "contiguous": lambda x: x.mT.contiguous().mT,
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last) * 2,
    "clone_channels_last": lambda x: x.clone(memory_format=torch.channels_last),
    "fft": lambda x: torch.fft.rfft2(x).abs(),
    "fft_filter": lambda x: torch.fft.irfft2(torch.fft.rfft2(x) * 2, s=x.shape[2:]),
    "itself": lambda x: x,
    "view_of_itself": lambda x: x[..., :1],
    "to_float32_and_back": lambda x: x.float().double(),
    "scalar": lambda x: x.sum().unsqueeze(0) * x,
    "new_zeros": lambda x: torch.cat([x.new_zeros(1, *x.shape[1:]), x]),
    "ones_like": lambda x: x + torch.ones_like(x) * x.new_full((1,), 3.0),
    "zeros_like": lambda x: _filled(torch.zeros_like(x), x),
}


def _filled(buffer: Tensor, x: Tensor) -> Tensor:
    buffer[:, :, :1] = x[:, :, -1:]
    return buffer


REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda x: x.sum((1, -1)),
    "sum_all": lambda x: x.sum(),
    "mean": lambda x: x.mean(-2, keepdim=True),
    "mean_all": lambda x: x.mean(),
    "var": lambda x: x.var((2, 3), correction=0),
    "std": lambda x: x.std(-1, correction=0, keepdim=True) if x.shape[-1] > 1 else x,
    "var_all": lambda x: x.var() if x.numel() > 1 else x,
    "std_default": lambda x: torch.cat([x, x.sin()], 1).std(1),
    "norm_all": lambda x: x.norm(),
    "norm_zero": lambda x: (x * (x[:, :1] > 0)).norm(dim=(1, 2), keepdim=True),
    "norm_scalar": lambda x: x.sum().norm(),
    "var_mean": lambda x: torch.stack(torch.var_mean(x, (1, 2), correction=0)),
    "norm": lambda x: x.norm(dim=1),
    "norm_1": lambda x: torch.linalg.vector_norm(x, 1, (2, 3)),
    "norm_inf": lambda x: torch.linalg.vector_norm(x, torch.inf, -1),
    "normalize": lambda x: F.normalize(x, dim=1),
    "amax": lambda x: x.amax((2, 3)),
    "amin": lambda x: x.amin(-1),
    "max": lambda x: x.max(1).values,
    "max_keepdim": lambda x: x.max(-1, keepdim=True)[0],
    "max_all": lambda x: x.max(),
    "min": lambda x: x.min(dim=2)[0],
    "median": lambda x: x.median(-1).values,
    "topk": lambda x: x.topk(1, dim=1).values,
    "sort": lambda x: x.sort(-1, descending=True).values,
    "kthvalue": lambda x: x.kthvalue(1, dim=2).values,
    "cumsum": lambda x: x.cumsum(1),
    "cummax": lambda x: x.cummax(-1).values,
    "cumprod": lambda x: x.cumprod(-1),
    "logsumexp": lambda x: x.logsumexp((1, 2)),
    "prod": lambda x: x.prod(1),
    "cosine": lambda x: F.cosine_similarity(x, x.sin(), dim=1),
}

NORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda x: x.softmax(-1),
    "softmax_channels": lambda x: x.softmax(1),
    "log_softmax": lambda x: x.log_softmax(-2),
    "softmin": lambda x: F.softmin(x, 2),
    "batch_norm": lambda x: F.batch_norm(
        x, constant(x.shape[1]), positive(constant(x.shape[1])), constant(x.shape[1])
    ),
    "batch_norm_plain": lambda x: F.batch_norm(x, constant(x.shape[1]), constant(x.shape[1]) ** 2),
    "batch_norm_2d": lambda x: F.batch_norm(
        x[..., 0, 0], constant(x.shape[1]), positive(constant(x.shape[1]))
    ),
    "batch_statistics": lambda x: F.batch_norm(
        torch.cat([x, x.sin()]), None, None, constant(x.shape[1]), constant(x.shape[1]), True
    ),
    "instance_norm": lambda x: F.instance_norm(
        torch.cat([x, x.sin()], -1), None, None, constant(x.shape[1]), constant(x.shape[1])
    ),
    "layer_norm": lambda x: F.layer_norm(
        x, x.shape[-1:], constant(x.shape[-1]), constant(x.shape[-1])
    ),
    "layer_norm_plain": lambda x: F.layer_norm(x, x.shape[1:], eps=1e-3),
    "layer_norm_channels": lambda x: F.layer_norm(
        x.permute(0, 2, 3, 1), x.shape[1:2], constant(x.shape[1]), None, 1e-3
    ).permute(0, 3, 1, 2),
    "group_norm": lambda x: F.group_norm(
        x.repeat(1, 2, 1, 1), 2, constant(2 * x.shape[1]), constant(2 * x.shape[1]), 1e-3
    ),
    "group_norm_plain": lambda x: F.group_norm(x, 1, eps=1e-3),
    "rms_norm": lambda x: F.rms_norm(x, x.shape[-1:], constant(x.shape[-1])),
    "batch_norm_moving": lambda x: F.batch_norm(
        x, constant(x.shape[1]), positive(constant(x.shape[1])), x[0, :, 0, 0], x[-1, :, 0, 1]
    ),
    "layer_norm_moving": lambda x: F.layer_norm(x, x.shape[-1:], x[0, 0, 0], x[0, 0, 1]),
    "layer_norm_constant": lambda x: F.layer_norm(
        constant(*x.shape), x.shape[-1:], None, x[0, 0, 1]
    ),
    "group_norm_moving": lambda x: F.group_norm(x, 1, x[0, :, 0, 0], eps=1e-3),
    "local_response_norm": lambda x: F.local_response_norm(x, 3),
    "dropout": lambda x: F.dropout(x, 0.5, False),
    "alpha_dropout": lambda x: F.alpha_dropout(x, 0.5, False),
}


def convolution(x: Tensor, draw: Draw) -> Tensor:
    """2-d convolutions with every option, transposed and depthwise."""
    groups = draw(st.sampled_from([1, 2]))
    x = x.repeat(1, groups, 1, 1) if groups > 1 else x
    channels = x.shape[1]
    depthwise = draw(st.booleans())
    groups = channels if depthwise else groups
    kernel = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    stride, dilation = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    out = groups * draw(st.integers(1, 2))
    bias = constant(out) if draw(st.booleans()) else None
    if draw(st.booleans()):
        weight = constant(channels, out // groups, *kernel)
        return F.conv_transpose2d(x, weight, bias, stride, 0, stride - 1, groups, 2)
    weight = constant(out, channels // groups, *kernel)
    return F.conv2d(x, weight, bias, stride, 4, dilation, groups)


CONVOLUTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "same": lambda x: F.conv2d(x, constant(4, x.shape[1], 3, 2), padding="same"),
    "1d": lambda x: F.conv1d(x[:, :, 0], constant(4, x.shape[1], 3), constant(4), padding=1),
    "3d": lambda x: F.conv3d(x[:, :, None], constant(4, x.shape[1], 1, 1, 2), padding=1),
    "transposed_1d": lambda x: F.conv_transpose1d(x[:, :, 0], constant(x.shape[1], 2, 3)),
    "unbatched": lambda x: F.conv2d(x[0], constant(4, x.shape[1], 1, 1), constant(4)),
    "circular": lambda x: F.conv2d(
        F.pad(x, (1, 1, 1, 1), mode="circular"), constant(4, x.shape[1], 3, 3)
    ),
    "moving_weight": lambda x: F.conv2d(x, x[:, :, :1, :1].sin(), x[:, 0, 0, 0]),
    "moving_weight_alone": lambda x: F.conv2d(constant(2, x.shape[1], 4, 4), x, padding=9),
    "moving_bias": lambda x: F.conv2d(x, constant(2, x.shape[1], 1, 1), x.flatten()[:1].repeat(2)),
}

POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "max": lambda x: F.max_pool2d(x, 2, 1, 1),
    "max_dilated": lambda x: (
        F.max_pool2d(x, 2, 2, 1, dilation=2, ceil_mode=True) if min(x.shape[2:]) > 1 else x
    ),
    "max_with_indices": lambda x: F.max_pool2d(x, 2, 1, 1, return_indices=True)[0],
    "max_unbatched": lambda x: F.max_pool2d(x[0], 2, 1, 1),
    "max_1d": lambda x: F.max_pool1d(x[:, 0], 2, 1, 1),
    "max_3d": lambda x: F.max_pool3d(x[:, :, None].contiguous(), (1, 2, 2), 1, (0, 1, 1)),
    "avg": lambda x: F.avg_pool2d(x, 2, 1, 1),
    "avg_exclusive": lambda x: F.avg_pool2d(x, (2, 3), 1, 1, True, False),
    "avg_divisor": lambda x: F.avg_pool2d(x, 2, 1, 1, divisor_override=3),
    "avg_unbatched": lambda x: F.avg_pool2d(x[0], 1),
    "avg_1d": lambda x: F.avg_pool1d(x[:, 0], 2, 1, 1),
    "avg_3d": lambda x: F.avg_pool3d(x[:, :, None].contiguous(), (1, 2, 2), 1, (0, 1, 1)),
    "adaptive_avg": lambda x: F.adaptive_avg_pool2d(x, (2, 3)),
    "adaptive_avg_1": lambda x: F.adaptive_avg_pool2d(x, 1),
    "adaptive_avg_1d": lambda x: F.adaptive_avg_pool1d(x[:, 0], 2),
    "adaptive_max": lambda x: F.adaptive_max_pool2d(x, (2, 3)),
    "adaptive_max_1d": lambda x: F.adaptive_max_pool1d(x[:, 0], 2),
    "lp": lambda x: F.lp_pool2d(positive(x), 3.0, 1),
    "nearest": lambda x: F.interpolate(x, scale_factor=2),
    "nearest_exact": lambda x: F.interpolate(x, (3, 5), mode="nearest-exact"),
    "bilinear": lambda x: F.interpolate(x, (3, 5), mode="bilinear"),
    "bilinear_corners": lambda x: F.interpolate(x, (3, 5), mode="bilinear", align_corners=True),
    "bilinear_antialias": lambda x: F.interpolate(x, (2, 2), mode="bilinear", antialias=True),
    "bicubic": lambda x: F.interpolate(x, (3, 5), mode="bicubic"),
    "bicubic_antialias": lambda x: F.interpolate(x, (2, 2), mode="bicubic", antialias=True),
    "area": lambda x: F.interpolate(x, (2, 2), mode="area"),
    "linear": lambda x: F.interpolate(x[:, 0], 5, mode="linear"),
    "pad": lambda x: F.pad(x, (1, 0, 2, 1)),
    "pad_value": lambda x: F.pad(x, (1, 1), value=3.0),
    "pad_negative": lambda x: F.pad(x, (1, -1), value=3.0),
    "pad_reflect": lambda x: F.pad(x, (1, 0, 1, 1), mode="reflect"),
    "pad_replicate": lambda x: F.pad(x, (2, 1, 1, 1), mode="replicate"),
}


def attention(x: Tensor, draw: Draw) -> Tensor:
    """Scaled dot-product attention with masks, one or more of its arguments moving."""
    n, c, h, _ = x.shape
    queries = draw(st.integers(1, 3))
    q: Tensor = constant(n, c, queries, 4, seed=1)
    k: Tensor = constant(n, c, h, 4, seed=2)
    v: Tensor = constant(n, c, h, 3, seed=3)
    moving = draw(st.sampled_from(["q", "k", "v", "qk", "kv", "qkv"]))
    if "q" in moving:
        q = q * x.mean((2, 3), keepdim=True) + x[..., :1, :1]
    if "k" in moving:
        k = k * x[..., :1]
    if "v" in moving:
        v = v + x[..., -1:].sin()
    kind = draw(st.sampled_from(["none", "bool", "float", "causal", "moving"]))
    mask: Tensor | None = None
    if kind == "bool":
        mask = constant(queries, h) > 0
    elif kind == "float":
        mask = constant(n, 1, queries, h)
    elif kind == "moving":
        mask = constant(n, 1, queries, h) * x[:, :1, :1, :1]
    scale = draw(st.sampled_from([None, 0.3]))
    return F.scaled_dot_product_attention(q, k, v, mask, is_causal=kind == "causal", scale=scale)


@functools.cache
def _multihead(width: int, batch_first: bool, bias: bool, zeros: bool) -> nn.MultiheadAttention:
    torch.manual_seed(0)
    module = nn.MultiheadAttention(
        width, 2, batch_first=batch_first, bias=bias, add_zero_attn=zeros, dtype=torch.float64
    )
    return module.eval().requires_grad_(False)


def multihead(x: Tensor, draw: Draw) -> Tensor:
    """nn.MultiheadAttention, weights averaged or not asked for, and other keys."""
    yes = st.booleans()
    module = _multihead(2 * x.shape[-1], draw(yes), draw(yes), draw(yes))
    tokens = torch.cat([x[:, 0], x[:, 0].sin()], -1)
    keys = tokens * 2 if draw(yes) else tokens
    output, weights = module(tokens, keys, tokens, need_weights=draw(yes))
    return output if weights is None else torch.cat([output.flatten(), weights.flatten()])
