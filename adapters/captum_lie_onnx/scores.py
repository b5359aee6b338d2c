"""What counts as class scores: ``[N, K]``, or that with axes of one pixel behind it."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


def class_scores(output: Tensor) -> Tensor:
    """An output without trailing axes of length one: ``[N, K, 1, 1]`` becomes ``[N, K]``.

    Fully convolutional classifiers end so. Whatever else has more than two axes stays as it is.

    Example:
        >>> import torch
        >>> class_scores(torch.zeros(2, 1000, 1, 1)).shape, class_scores(torch.zeros(2, 1, 1)).shape
        (torch.Size([2, 1000]), torch.Size([2, 1]))
    """
    trailing = output.shape[2:]
    return output.flatten(1) if trailing and set(trailing) == {1} else output


class ClassScores(nn.Module):
    """A model behind :func:`class_scores`.

    Args:
        model: images ``[N, C, H, W]`` to scores ``[N, K]`` or ``[N, K, 1, ...]``.
    """

    def __init__(self, model: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        return class_scores(self.model(images))
