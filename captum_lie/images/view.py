"""How a model sees an image: channels, size, crop and interpolation, stated and repeatable."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from captum_lie.core.validation import one_of
from captum_lie.errors import InvalidValueError

Interpolation = Literal["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"]
CropMode = Literal["center", "squash"]

#: Weights of red, green and blue in grey (ITU-R BT.601), as Pillow takes them.
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class View:
    """What becomes of an image before a model sees it.

    The image is scaled so that it covers ``size / crop``, and its middle is cut out; the same
    arithmetic as torchvision's ``Resize`` and ``CenterCrop``, in which timm states its
    configurations.

    Args:
        size: ``(height, width)`` in pixels; None keeps the image's own.
        crop: share of each side of the scaled image that the cut keeps, in (0, 1].
        interpolation: Pillow's filter, with antialiasing.
        mode: ``"center"`` keeps the aspect ratio and loses borders, ``"squash"`` the other way.
        channels: 1 makes grey of colours, 3 colours of grey; None, or where neither applies, keeps
            the image's own.

    Raises:
        ValueError: a size or share outside its range, an unknown interpolation or mode.

    Example:
        >>> view = View((2, 2), crop=0.5, channels=1)
        >>> view(torch.rand(3, 4, 6)).shape
        torch.Size([1, 2, 2])
        >>> view.describe()
        '2x2, the middle of 4x4 (bicubic), grey'
    """

    size: tuple[int, int] | None = None
    crop: float = 1.0
    interpolation: Interpolation = "bicubic"
    mode: CropMode = "center"
    channels: int | None = None

    def __post_init__(self) -> None:
        one_of("interpolation", self.interpolation, get_args(Interpolation))
        one_of("crop mode", self.mode, get_args(CropMode))
        if not 0 < self.crop <= 1:
            raise InvalidValueError(f"The share to crop must lie in (0, 1]; got {self.crop}.")
        if self.size is not None and min(self.size) < 1:
            raise InvalidValueError(f"A size must be positive; got {self.size}.")
        if self.channels is not None and self.channels < 1:
            raise InvalidValueError(f"channels must be at least 1; got {self.channels}.")

    def __call__(self, image: Tensor | Image.Image) -> Tensor:
        """An image, ``[C, H, W]`` in [0, 1] or Pillow's, as ``[C', H', W']`` in [0, 1], float32.

        Pillow's images are scaled in eight bits, as everywhere in Pillow's world.
        """
        if isinstance(image, Image.Image):
            found = self._cut(image.convert("L" if self.channels == 1 else "RGB"))
            pixels = torch.from_numpy(np.array(found)).float() / 255
            return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()
        image = with_channels(image, self.channels)
        if self.size is None or self.size == tuple(image.shape[1:]):
            return image.float()
        bands = [Image.fromarray(band) for band in image.float().numpy()]
        cut = np.stack([np.asarray(self._cut(band)) for band in bands])
        return torch.from_numpy(cut).clamp(0, 1)

    def _cut(self, image: Image.Image) -> Image.Image:
        if self.size is None:
            return image
        height, width = self.size
        scaled = self._scaled((image.height, image.width))
        image = image.resize((scaled[1], scaled[0]), Image.Resampling[self.interpolation.upper()])
        top, left = round((scaled[0] - height) / 2), round((scaled[1] - width) / 2)
        return image.crop((left, top, left + width, top + height))

    def _scaled(self, own: tuple[int, int]) -> tuple[int, int]:
        """Size to which an image of this size is scaled: it covers what the cut is taken from."""
        height, width = self._frame()
        if self.mode == "squash":
            return height, width
        if height == width:
            short = min(own)
            return (int(height * own[0] / short), int(height * own[1] / short))
        ratio = max(height / own[0], width / own[1])
        return (max(height, round(own[0] * ratio)), max(width, round(own[1] * ratio)))

    def _frame(self) -> tuple[int, int]:
        assert self.size is not None
        return math.floor(self.size[0] / self.crop), math.floor(self.size[1] / self.crop)

    def describe(self) -> str:
        """In words, for reports."""
        if self.size is None:
            words = "the image's own size"
        else:
            height, width = self.size
            frame = "{}x{}".format(*self._frame())
            how = f"squashed to {frame}" if self.mode == "squash" else f"the middle of {frame}"
            words = f"{height}x{width}, {how} ({self.interpolation})"
        return words + (", grey" if self.channels == 1 else "")


def with_channels(image: Tensor, channels: int | None) -> Tensor:
    """``[C, H, W]`` with one channel made grey or three made of grey; else unchanged.

    Example:
        >>> with_channels(torch.ones(3, 1, 1), 1).shape, with_channels(torch.ones(1, 1, 1), 3).shape
        (torch.Size([1, 1, 1]), torch.Size([3, 1, 1]))
    """
    if channels == 1 and len(image) == 3:
        return torch.einsum("chw,c->hw", image, image.new_tensor(_LUMA))[None]
    if channels == 3 and len(image) == 1:
        return image.expand(3, -1, -1)
    return image


def view_of(model: nn.Module) -> View:
    """How a model wants its images: its own ``view``, else its ``input_size`` and first layer.

    A model whose first convolution takes one channel is shown grey images.

    Example:
        >>> view_of(nn.Conv2d(1, 2, 3)).channels
        1
        >>> view_of(nn.Flatten())
        View(size=None, crop=1.0, interpolation='bicubic', mode='center', channels=None)
    """
    view = getattr(model, "view", None)
    if isinstance(view, View):
        return view
    size = getattr(model, "input_size", None)
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    channels = None if first is None else first.in_channels
    return View(size, channels=channels if channels in (1, 3) else None)
