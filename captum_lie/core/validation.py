"""Checks on what users pass in: each error says the cause, what it got, and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from captum_lie.errors import InvalidTypeError, InvalidValueError


def one_of(what: str, value: str, allowed: Sequence[str]) -> None:
    """Raise unless ``value`` is one of ``allowed``.

    Raises:
        ValueError: it is none of them; names them all, and the closest.

    Example:
        >>> one_of("border", "reflekt", ("reflect", "circular"))
        Traceback (most recent call last):
        captum_lie.errors.InvalidValueError: Unknown border 'reflekt'. Choose from reflect, \
circular. Did you mean 'reflect'?
    """
    if value in allowed:
        return
    close = difflib.get_close_matches(str(value), allowed, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise InvalidValueError(f"Unknown {what} {value!r}. Choose from {', '.join(allowed)}.{hint}")


def check_images(x: Tensor) -> None:
    """Images must be a floating point tensor ``[N, C, H, W]``.

    Raises:
        TypeError, ValueError: they are not.

    Example:
        >>> check_images(torch.rand(3, 8, 8))
        Traceback (most recent call last):
        captum_lie.errors.InvalidValueError: Images must be [N, C, H, W]; got shape (3, 8, 8). \
Add the batch dimension with x.unsqueeze(0).
    """
    if not isinstance(x, Tensor):
        raise InvalidTypeError(
            f"Images must be a torch.Tensor [N, C, H, W]; got {type(x).__name__}."
        )
    if x.ndim != 4:
        remedy = " Add the batch dimension with x.unsqueeze(0)." if x.ndim == 3 else ""
        raise InvalidValueError(f"Images must be [N, C, H, W]; got shape {tuple(x.shape)}.{remedy}")
    if not x.is_floating_point():
        raise InvalidTypeError(
            f"Images must be floating point to have a derivative; got {x.dtype}. "
            "Convert them first, for example x.float() / 255."
        )
    if x.shape[-1] < 1 or x.shape[-2] < 1:
        raise InvalidValueError(f"Images have no pixels: shape {tuple(x.shape)}.")


def check_inputs(inputs: tuple[Tensor, ...]) -> None:
    """Every input must be a batch of finite images; all batches must have one size.

    Raises:
        TypeError, ValueError: that is not so.

    Example:
        >>> check_inputs((torch.rand(2, 3, 8, 8), torch.rand(4, 1, 8, 8)))
        Traceback (most recent call last):
        captum_lie.errors.InvalidValueError: All inputs must have the same number of examples; \
got [2, 4].
    """
    if not inputs:
        raise InvalidValueError(
            "No input given: pass an image tensor [N, C, H, W] or a tuple of them."
        )
    for x in inputs:
        check_images(x)
        if len(x) == 0:
            raise InvalidValueError(
                f"The batch is empty: shape {tuple(x.shape)}. Pass at least one image."
            )
        if not x.isfinite().all():
            bad = (~x.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
            raise InvalidValueError(
                f"Images contain NaN or infinite values (examples {_some(bad)}). "
                "Every derivative would be NaN: clean or drop these images."
            )
    sizes = {len(x) for x in inputs}
    if len(sizes) > 1:
        raise InvalidValueError(
            f"All inputs must have the same number of examples; got {[len(x) for x in inputs]}."
        )


def check_output(output: object) -> Tensor:
    """The model must return one tensor, of floating point (or complex) numbers.

    Raises:
        TypeError: it does not.

    Example:
        >>> check_output(torch.zeros(2, 5)).shape
        torch.Size([2, 5])
    """
    if not isinstance(output, Tensor):
        raise InvalidTypeError(
            f"The model must return one Tensor; got {type(output).__name__}. "
            "Wrap it: forward_func=lambda x: model(x)['logits'], say."
        )
    if not (output.is_floating_point() or output.is_complex()):
        raise InvalidTypeError(
            f"The model must return floating point numbers to have a derivative; got {output.dtype}"
            ". Let it return scores rather than the classes that follow from them."
        )
    return output


def check_internal_batch_size(size: int | None) -> None:
    if size is not None and size < 1:
        raise InvalidValueError(f"internal_batch_size must be at least 1 or None; got {size}.")


def check_eval_mode(forward_func: object) -> None:
    """Refuse a model whose output is random, or changes the model, in training mode.

    Raises:
        ValueError: it is in training mode, and has such a module.

    Example:
        >>> check_eval_mode(nn.Linear(2, 2))  # the same in either mode
        >>> check_eval_mode(nn.Dropout())
        Traceback (most recent call last):
        captum_lie.errors.InvalidValueError: The model is in training mode: the model (Dropout) \
is random or depends on the batch there. Call model.eval() first.
    """
    module = forward_func
    if not isinstance(module, nn.Module):
        module = getattr(forward_func, "__self__", None)
    if not isinstance(module, nn.Module):
        return
    for name, child in module.named_modules():
        if child.training and _depends_on_training(child):
            raise InvalidValueError(
                f"The model is in training mode: {name or 'the model'} ({type(child).__name__}) is "
                "random or depends on the batch there. Call model.eval() first."
            )


def _depends_on_training(module: nn.Module) -> bool:
    if isinstance(module, nn.modules.batchnorm._BatchNorm | nn.modules.instancenorm._InstanceNorm):
        return isinstance(module, nn.modules.batchnorm._BatchNorm) or module.track_running_stats
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return module.p > 0
    if isinstance(module, nn.MultiheadAttention | nn.RNNBase):
        return module.dropout > 0
    if isinstance(module, nn.RReLU):
        return True
    # Stochastic depth (drop path) in the libraries that have it keeps its rate under this name.
    rate = getattr(module, "drop_prob", None)
    return isinstance(rate, float) and rate > 0 and not list(module.children())


def _some(indices: Sequence[int], most: int = 8) -> str:
    shown = ", ".join(map(str, indices[:most]))
    return shown if len(indices) <= most else f"{shown} and {len(indices) - most} more"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is for want of memory: on a CPU, PyTorch says so in its message alone."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError)
        and any(sign in str(error) for sign in ("not enough memory", "DefaultCPUAllocator"))
    )
