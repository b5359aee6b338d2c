"""The four example architectures: one task, four ways of looking at an image.

All of them map plain images ``[N, 3, 32, 32]`` with values in [0, 1] to logits
``[N, n_classes]``; the normalisation is their first layer. No operation works in place, so hooks
and forward-mode differentiation see every intermediate value.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from captum_lie.errors import InvalidValueError
from captum_lie.examples.data import CLASSES, IMAGE_SIZE, corrupt, read_shipped

PATCH_SIZE = 4  # pixels a side


class Normalise(nn.Module):
    """Map values in [0, 1] to about zero mean and unit variance; shape unchanged."""

    def __init__(self, mean: float = 0.5, std: float = 0.25) -> None:
        super().__init__()
        self.mean, self.std = mean, std

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std

    def extra_repr(self) -> str:
        return f"mean={self.mean}, std={self.std}"


class BlurPool(nn.Module):
    """Blur with the binomial filter [1, 2, 1] / 4 in both directions, then keep every 2nd pixel.

    ``[N, C, H, W]`` becomes ``[N, C, ceil(H / 2), ceil(W / 2)]`` (H, W >= 2: the border is
    reflected). Blurring before subsampling is what keeps a shift of the input from becoming an
    alias in the output (Zhang, "Making convolutional networks shift-invariant again", 2019).

    >>> BlurPool(3)(torch.ones(1, 3, 31, 32)).shape
    torch.Size([1, 3, 16, 16])
    """

    kernel: Tensor

    def __init__(self, channels: int, stride: int = 2) -> None:
        super().__init__()
        self.channels, self.stride = channels, stride
        row = torch.tensor([1.0, 2.0, 1.0]) / 4
        # Fixed, hence not part of the weights: blurred and plain twin share one state dict.
        kernel = torch.outer(row, row).expand(channels, 1, 3, 3).clone()
        self.register_buffer("kernel", kernel, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x, (1, 1, 1, 1), mode="reflect")
        return F.conv2d(padded, self.kernel, stride=self.stride, groups=self.channels)

    def extra_repr(self) -> str:
        return f"{self.channels}, stride={self.stride}"


def _conv_block(c_in: int, c_out: int, *, stride: int, blur: bool) -> nn.Sequential:
    """Conv-BatchNorm-ReLU; with ``blur`` the stride moves from the convolution to a BlurPool."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(c_in, c_out, 3, 1 if blur else stride, padding=1, bias=False),
        norm=nn.BatchNorm2d(c_out),
        act=nn.ReLU(),
    )
    if blur and stride > 1:
        layers["blur"] = BlurPool(c_out, stride)
    return nn.Sequential(layers)


def cnn(n_classes: int, *, blur: bool = False) -> nn.Sequential:
    """A plain convolutional net: max pooling once, stride-2 convolutions twice.

    With ``blur`` every subsampling is preceded by a blur; the parameters are the same, name by
    name. Any input of at least 8 x 8 pixels works.

    >>> cnn(8)(torch.rand(2, 3, 40, 56)).shape
    torch.Size([2, 8])
    """
    stem = _conv_block(3, 16, stride=1, blur=blur)
    stem.add_module("maxpool", nn.MaxPool2d(2, stride=1 if blur else 2))
    if blur:
        stem.add_module("blur", BlurPool(16))
    stages = [
        nn.Sequential(
            OrderedDict(
                down=_conv_block(c_in, c_out, stride=2, blur=blur),
                conv=_conv_block(c_out, c_out, stride=1, blur=blur),
            )
        )
        for c_in, c_out in ((16, 32), (32, 48))
    ]
    return nn.Sequential(
        OrderedDict(
            normalise=Normalise(),
            stem=stem,
            stages=nn.Sequential(*stages),
            pool=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            head=nn.Linear(48, n_classes),
        )
    )


class PatchEmbed(nn.Module):
    """Cut images ``[N, 3, H, W]`` into 4 x 4 patches, embed each: tokens ``[N, T, dim]``."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, PATCH_SIZE, stride=PATCH_SIZE)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-2:] != (IMAGE_SIZE, IMAGE_SIZE):
            raise InvalidValueError(
                f"this model takes images [N, 3, {IMAGE_SIZE}, {IMAGE_SIZE}], got "
                f"{list(x.shape)}; resize them, or use 'cnn' or 'cnn_blur', which take any size"
            )
        tokens: Tensor = self.proj(x).flatten(2).transpose(1, 2)
        return tokens


class PositionEmbed(nn.Module):
    """Add a learned vector to each token: ``[N, T, dim]`` to ``[N, T, dim]``."""

    def __init__(self, tokens: int, dim: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(1, tokens, dim) * 0.02)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table


class Attention(nn.Module):
    """Multi-head self-attention over tokens ``[N, T, dim]``."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*qkv.unbind(0))
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return out


class Transpose(nn.Module):
    """Swap tokens and channels: ``[N, T, C]`` to ``[N, C, T]``."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


class Residual(nn.Module):
    """``x + branch(norm(x))`` on tokens ``[N, T, dim]``."""

    def __init__(self, dim: int, branch: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.branch(self.norm(x))
        return out


class TokenMean(nn.Module):
    """Mean over the tokens: ``[N, T, dim]`` to ``[N, dim]``."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=1)


def _mlp(width: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(fc1=nn.Linear(width, hidden), act=nn.GELU(), fc2=nn.Linear(hidden, width))
    )


def _token_net(
    dim: int, n_classes: int, blocks: list[nn.Module], *, position: bool
) -> nn.Sequential:
    """The frame that ViT and Mixer share: patches, blocks, norm, mean over tokens, linear head."""
    n_tokens = (IMAGE_SIZE // PATCH_SIZE) ** 2
    layers: OrderedDict[str, nn.Module] = OrderedDict(normalise=Normalise(), stem=PatchEmbed(dim))
    if position:
        layers["position"] = PositionEmbed(n_tokens, dim)
    layers.update(
        blocks=nn.Sequential(*blocks),
        norm=nn.LayerNorm(dim),
        pool=TokenMean(),
        head=nn.Linear(dim, n_classes),
    )
    return nn.Sequential(layers)


def vit(n_classes: int, *, dim: int = 48, depth: int = 4, heads: int = 4) -> nn.Sequential:
    """A small vision transformer: 64 patch tokens, pre-norm blocks, mean over tokens.

    >>> vit(8)(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 8])
    """
    blocks: list[nn.Module] = [
        nn.Sequential(
            OrderedDict(
                attention=Residual(dim, Attention(dim, heads)),
                mlp=Residual(dim, _mlp(dim, 2 * dim)),
            )
        )
        for _ in range(depth)
    ]
    return _token_net(dim, n_classes, blocks, position=True)


def mixer(n_classes: int, *, dim: int = 48, depth: int = 4) -> nn.Sequential:
    """A small MLP-Mixer: MLPs over the 64 patch tokens and over the channels in turn.

    >>> mixer(8)(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 8])
    """
    n_tokens = (IMAGE_SIZE // PATCH_SIZE) ** 2
    blocks: list[nn.Module] = [
        nn.Sequential(
            OrderedDict(
                tokens=Residual(dim, nn.Sequential(Transpose(), _mlp(n_tokens, 32), Transpose())),
                channels=Residual(dim, _mlp(dim, 2 * dim)),
            )
        )
        for _ in range(depth)
    ]
    return _token_net(dim, n_classes, blocks, position=False)


def cnn_blur(n_classes: int) -> nn.Sequential:
    """:func:`cnn` with anti-aliased subsampling."""
    return cnn(n_classes, blur=True)


ARCHITECTURES: dict[str, Callable[[int], nn.Sequential]] = {
    "cnn": cnn,
    "cnn_blur": cnn_blur,
    "vit": vit,
    "mixer": mixer,
}
MODEL_NAMES: tuple[str, ...] = tuple(ARCHITECTURES)


def build(name: str, n_classes: int = len(CLASSES), *, seed: int = 0) -> nn.Sequential:
    """An untrained model, the same for the same seed; the global random state stays as it was."""
    if name not in ARCHITECTURES:
        raise InvalidValueError(
            f"there is no example model {name!r}; choose from {list(MODEL_NAMES)}"
        )
    # Seeding only the CPU generator leaves those of accelerators alone, too.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        return ARCHITECTURES[name](n_classes)


def load_model(name: str, trained: bool = True) -> nn.Module:
    """One of the example classifiers, in eval mode, on the CPU, in float32.

    ``name`` is one of ``MODEL_NAMES``. It maps images ``[N, 3, 32, 32]`` in [0, 1] to logits
    ``[N, 8]``, in the order of ``CLASSES``. ``trained=False`` gives the untrained twin, always
    the same. ValueError for an unknown name; FileNotFoundError or RuntimeError when the shipped
    weights are missing or damaged.

    >>> load_model("vit")(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 8])
    """
    model = build(name)
    if trained:
        file = f"{name}.safetensors"
        try:
            # Stored in float16 to keep the wheel small; copying into the model casts to float32.
            model.load_state_dict(load(read_shipped(file)))
        except (SafetensorError, RuntimeError) as error:
            raise corrupt(file, error) from error
    return model.eval()
