"""From any source of images to full batches for the model, one block of examples at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from captum_lie.core.captum_compat import progress
from captum_lie.core.loaders import device_of, images_of
from captum_lie.core.validation import check_eval_mode, check_inputs, check_output
from captum_lie.errors import InvalidTypeError, InvalidValueError
from captum_lie.metrics.settings import Batching, Evaluation
from captum_lie.results.metrics import Array

Model = Callable[[Tensor], Tensor]
Images = Tensor | Iterable[Any]


@dataclass(frozen=True)
class Block:
    """Consecutive examples: ``images [n, C, H, W]``, ``labels [n]`` or None."""

    first: int
    images: Tensor
    labels: Tensor | None

    @property
    def index(self) -> Array:
        return np.arange(self.first, self.first + len(self.images))


def blocks(
    model: Model,
    images: Images,
    description: str,
    how: Batching,
    *,
    labels: Tensor | None = None,
    read_labels: bool = False,
) -> Iterator[Block]:
    """Regroup the images into blocks of ``batch_size``, on the model's device.

    Args:
        description: of the progress bar.
        images: a tensor ``[N, C, H, W]``, or anything that yields such tensors, or tuples
            ``(images, labels, ...)`` of them, such as a DataLoader.
        labels: ``[N]``, for images given as one tensor.
        read_labels: whether the labels that a loader yields are of interest.

    Raises:
        TypeError, ValueError: not images, no images, or sizes that do not fit.
    """
    check_eval_mode(model)
    device, batch_size, first = device_of(model), how.batch_size, how.first_index
    held: list[tuple[Tensor, Tensor | None]] = []
    source, total = _source(images, labels)
    for batch in progress(source, description, total, how.show_progress):
        held.append(_split(batch, read_labels))
        while sum(len(x) for x, _ in held) >= batch_size:
            block, rest = _take(held, batch_size)
            yield Block(first, block[0].to(device), block[1])
            first += batch_size
            held = [rest] if len(rest[0]) else []
    if held:
        block, _ = _take(held, batch_size)
        yield Block(first, block[0].to(device), block[1])
    elif first == how.first_index:
        raise InvalidValueError("There are no images: nothing to measure.")


def evaluated(
    model: Model, images: Images, description: str, how: Evaluation
) -> Iterator[tuple[Block, Tensor]]:
    """Blocks of images, each with what is compared of it, ``output_fn(f(x))``."""
    for block in blocks(model, images, description, how):
        yield block, apply_output_fn(how.output_fn, call(model, block.images))


def respond(
    model: Model,
    images: Tensor,
    n_samples: int,
    transform: Callable[[Tensor, Array, Array], Tensor],
    batch_size: int,
) -> Tensor:
    """Outputs for ``n_samples`` transformed copies of each image, in full batches.

    Args:
        transform: ``(images, example, sample) -> inputs``; the indices say for each row which
            image of the block it is and which of its copies.

    Returns:
        ``[n_samples, n, ...]`` on the CPU, in the model's own precision.
    """
    n = len(images)
    outputs = []
    for start in range(0, n * n_samples, batch_size):
        item = np.arange(start, min(start + batch_size, n * n_samples))
        example, sample = item % n, item // n
        # As many as there are images only ever means all of them, in order: no need to copy.
        whole = len(item) == n
        rows = images if whole else images[torch.from_numpy(example).to(images.device)]
        outputs.append(call(model, transform(rows, example, sample)))
    responses: Tensor = torch.cat(outputs).unflatten(0, (n_samples, n))
    return responses


def call(model: Model, inputs: Tensor) -> Tensor:
    """Evaluate the model without gradients and check what it returns; the output on the CPU.

    Raises:
        TypeError, ValueError: not one row of finite scores for each image.

    Example:
        >>> call(torch.nn.Flatten(), torch.zeros(2, 3, 4, 4)).shape
        torch.Size([2, 48])
    """
    with torch.no_grad():
        output = check_output(model(inputs)).detach().cpu()
    if output.ndim < 2 or len(output) != len(inputs):
        raise InvalidValueError(
            f"The model must return one row [N, K, ...] for each of the {len(inputs)} images; "
            f"got shape {tuple(output.shape)}."
        )
    if not output.is_floating_point():
        raise InvalidTypeError(
            f"The model must return floating point scores; got {output.dtype}. "
            "Return scores or probabilities, not predicted classes."
        )
    if not output.isfinite().all():
        raise InvalidValueError(
            "The model returned NaN or infinite values, of which no metric can be taken. "
            "Check its weights, and that images are normalised as it expects."
        )
    return output


def _source(images: Images, labels: Tensor | None) -> tuple[Iterable[Any], int | None]:
    if isinstance(images, Tensor):
        if labels is not None and len(labels) != len(images):
            raise InvalidValueError(f"There are {len(images)} images but {len(labels)} labels.")
        return [(images, labels)], 1
    if labels is not None:
        raise InvalidValueError("With a loader, let it yield (images, labels) instead of labels=.")
    if not isinstance(images, Iterable):
        raise InvalidTypeError(
            "Images must be a tensor [N, C, H, W] or yield such tensors; "
            f"got {type(images).__name__}."
        )
    return images, len(images) if isinstance(images, Sized) else None


def _split(batch: Any, read_labels: bool) -> tuple[Tensor, Tensor | None]:
    images = images_of(batch)
    paired = isinstance(batch, list | tuple) and len(batch) > 1
    labels = batch[1] if paired and read_labels else None
    check_inputs((images,))
    images = images.detach()
    if labels is None:
        return images, None
    labels = torch.as_tensor(labels)
    if labels.shape != (len(images),):
        raise InvalidValueError(
            f"Labels must be one class index per image, [{len(images)}]; "
            f"got shape {tuple(labels.shape)}."
        )
    return images, labels


def _take(
    held: list[tuple[Tensor, Tensor | None]], size: int
) -> tuple[tuple[Tensor, Tensor | None], tuple[Tensor, Tensor | None]]:
    shapes = {tuple(x.shape[1:]) for x, _ in held}
    if len(shapes) > 1:
        raise InvalidValueError(
            f"All images must have one shape; got {sorted(shapes)}. Resize or crop them first."
        )
    images = held[0][0] if len(held) == 1 else torch.cat([x for x, _ in held])
    known = [y for _, y in held if y is not None]
    labels = torch.cat(known) if len(known) == len(held) else None
    return (
        (images[:size], labels if labels is None else labels[:size]),
        (images[size:], labels if labels is None else labels[size:]),
    )


def apply_output_fn(output_fn: Callable[[Tensor], Tensor] | None, output: Tensor) -> Tensor:
    """The quantity that is compared, in double precision."""
    output = output.double()
    return output if output_fn is None else output_fn(output)


def squared_change(
    model: Model,
    block: Block,
    act: Callable[[Tensor, Array, Array], Tensor],
    n_samples: int,
    *,
    evaluation: Evaluation,
    reference: Tensor,
    undo: Callable[[Tensor, int], Tensor] | None = None,
) -> Tensor:
    """Mean square of ``undo(f(act(x))) − f(x)`` over output values, ``[n, n_samples]``.

    Args:
        act: as ``transform`` in :func:`respond`.
        reference: ``output_fn(f(x))``.
        undo: ``(outputs [n, ...] of one sample, sample) -> outputs``, for outputs that move; those
            that stay are compared as they are.
    """
    moved = respond(model, block.images, n_samples, act, evaluation.batch_size)
    outputs = apply_output_fn(evaluation.output_fn, moved.flatten(0, 1))
    if undo is None or not evaluation.layout.moves:
        undo = _left
    errors = [
        undo(output, sample) - reference
        for sample, output in enumerate(outputs.unflatten(0, moved.shape[:2]))
    ]
    return torch.stack([error.square().flatten(1).mean(1) for error in errors], dim=1)


def _left(output: Tensor, _sample: int) -> Tensor:
    return output
