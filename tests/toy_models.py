"""Small models in the style of the architectures that users measure, in evaluation mode."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ResNetLike(nn.Module):
    """Strided residual network with batch normalisation, in-place or smooth activations."""

    def __init__(self, smooth: bool = False, classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.act: nn.Module = nn.SiLU() if smooth else nn.ReLU(inplace=True)
        self.pool: nn.Module = nn.AvgPool2d(2) if smooth else nn.MaxPool2d(2)
        self.conv1 = nn.Conv2d(8, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.act(self.norm(self.stem(x))))
        x = x + self.conv2(self.act(self.conv1(x)))  # one activation module, called three times
        return self.head(self.act(x).mean((2, 3)))


class ViTLike(nn.Module):
    """Patch embedding, class token, fused attention and nn's own encoder layer."""

    def __init__(self, size: tuple[int, int], classes: int = 5) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 16, 2, stride=2)
        tokens = (size[0] // 2) * (size[1] // 2) + 1
        self.cls = nn.Parameter(torch.randn(1, 1, 16))
        self.position = nn.Parameter(torch.randn(1, tokens, 16))
        self.qkv = nn.Linear(16, 48)
        self.layer = nn.TransformerEncoderLayer(
            16, 2, 32, activation="gelu", batch_first=True, dropout=0.1
        )
        self.head = nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.position
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
        x = x + F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.head(self.layer(x)[:, 0])


class MixerLike(nn.Module):
    """Token and channel mixing with GELU."""

    def __init__(self, size: tuple[int, int], classes: int = 5) -> None:
        super().__init__()
        tokens = (size[0] // 2) * (size[1] // 2)
        self.embed = nn.Conv2d(3, 16, 2, stride=2)
        self.norm = nn.LayerNorm(16)
        self.tokens = nn.Sequential(nn.Linear(tokens, 24), nn.GELU(), nn.Linear(24, tokens))
        self.channels = nn.Sequential(nn.Linear(16, 24), nn.GELU(), nn.Linear(24, 16))
        self.head = nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = x + self.tokens(self.norm(x).transpose(1, 2)).transpose(1, 2)
        return self.head((x + self.channels(self.norm(x))).mean(1))


class CircularConv(nn.Module):
    """Stride-1 circular convolution: commutes with circular translations. Returns a dense map."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 3, padding=1, padding_mode="circular")

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def build(name: str, size: tuple[int, int] = (8, 12), dtype: Any = torch.float64) -> nn.Module:
    """A reproducible model with non-trivial normalisation statistics."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        models: dict[str, nn.Module] = {
            "resnet": ResNetLike(),
            "resnet_smooth": ResNetLike(smooth=True),
            "vit": ViTLike(size),
            "mixer": MixerLike(size),
            "dense": CircularConv(),
        }
        model = models[name]
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean = torch.rand(module.num_features)
                module.running_var = torch.rand(module.num_features) + 0.5
    return model.to(dtype).eval()


def images(
    n: int = 2, size: tuple[int, int] = (8, 12), dtype: Any = torch.float64, seed: int = 1
) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, 3, *size, generator=generator, dtype=torch.float64).to(dtype)


class Fails(nn.Module):
    """A residual network that raises at its end while it is armed."""

    def __init__(self) -> None:
        super().__init__()
        self.body: Any = build("resnet")
        self.armed = False

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        if self.armed:
            raise KeyError("the model failed")
        return y


class ReverseOnly(torch.autograd.Function):
    """A square without forward mode, as an extension's operator might come."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * gradients[0]


class WrongBackward(torch.autograd.Function):
    """A square whose reverse mode is wrong, as an operator's may be; forward mode is right."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x**2

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(inputs[0])
        ctx.save_for_forward(inputs[0])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return 3 * ctx.saved_tensors[0] * gradients[0]

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * tangents[0]


class Applied(nn.Module):
    """A function with its own derivatives as a module."""

    def __init__(self, function: type[torch.autograd.Function]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.function.apply(x)
        return result


def untyped(value: object) -> Any:
    """A value that the type checker is to know nothing of, for calls that are wrong on purpose."""
    return value
