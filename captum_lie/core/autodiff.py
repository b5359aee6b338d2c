"""Pushforward (forward mode) and pullback (reverse mode) of a model, without side effects.

Forward mode evaluates the model once and carries all tangents through it, by the rules of
:mod:`captum_lie.core.tangents` or, where an operation has none, by ``vmap`` over ``jvp``. Models
that cannot do that are differentiated one tangent at a time, and those with an operator that lacks
forward mode by reverse-over-reverse: ``J ξ = d/du ⟨Jᵀ u, ξ⟩``, since ``Jᵀ u`` is linear in u.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import checkpoint
from torch.utils.checkpoint import CheckpointFunction

from captum_lie.core import tangents as engine
from captum_lie.core.batch_norm import AffineBatchNorm
from captum_lie.core.memory import kept_buffers
from captum_lie.core.turns import Turns
from captum_lie.core.validation import check_output, is_out_of_memory
from captum_lie.errors import UnsupportedModelError, first_line

with warnings.catch_warnings():  # forward mode imports this, which uses a deprecated part of torch
    warnings.simplefilter("ignore")
    import torch._decomp.decompositions_for_jvp

Function = Callable[..., Tensor]
Tensors = tuple[Tensor, ...]


def differentiable() -> AbstractContextManager[None]:
    """Settings under which models have right derivatives of every mode; restored on leaving.

    Fused attention kernels and the fast path of ``nn.MultiheadAttention`` lack forward mode, and so
    does everything in inference mode. Functions of checkpoints are called directly: reentrant ones
    can be differentiated by ``Tensor.backward`` alone, others evaluate anew what was a dual tensor.

    These switches are the whole process's, and so is the level of forward mode, of which PyTorch
    has one: threads take turns. Whatever else the process evaluates meanwhile gets the same numbers
    up to rounding, by other kernels. Scopes of one thread may nest and overlap.

    Example:
        >>> with differentiable():
        ...     torch.backends.mha.get_fastpath_enabled()
        False
        >>> torch.backends.mha.get_fastpath_enabled()
        True
    """
    return _turns


@contextmanager
def _settings() -> Iterator[None]:
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with (
            torch.inference_mode(False),
            sdpa_kernel(SDPBackend.MATH),
            _direct_checkpoints(),
            kept_buffers(),
        ):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)


@contextmanager
def _direct_checkpoints() -> Iterator[None]:
    """Checkpoints that call their function at once and forget nothing.

    What they would evaluate anew in a backward pass has no tangents by then.
    """
    own = vars(CheckpointFunction).get("apply")  # none: it inherits that of all functions
    hooks = {name: vars(checkpoint)[name] for name in _HOOKS if hasattr(checkpoint, name)}
    CheckpointFunction.apply = staticmethod(lambda run, _preserve, *args: run(*args))
    vars(checkpoint).update(dict.fromkeys(hooks, _no_hooks))
    try:
        yield
    finally:
        vars(checkpoint).update(hooks)
        if own is None:
            del CheckpointFunction.apply
        else:
            CheckpointFunction.apply = own


# Of checkpoints that are not reentrant, under the names that PyTorch has had for it.
_HOOKS = [f"_checkpoint_without_reentrant_generator{suffix}" for suffix in ("", "_impl")]


def _no_hooks(*_: object, **__: object) -> Iterator[None]:
    yield  # here the function is called


@contextmanager
def _settings_of_torch() -> Iterator[None]:
    with _prepared, AffineBatchNorm():
        yield


#: What our own forward mode needs, and all that PyTorch's own modes need besides.
_prepared = Turns(_settings)
_turns = Turns(_settings_of_torch, within=_prepared)


def unhooked() -> AbstractContextManager[None]:
    """A scope of our own operations, which pass by the modes that models are evaluated under.

    Each mode costs every operation, down to ``len(x)``, a detour through Python.
    """
    return torch._C.DisableTorchFunction()


def pullback(function: Function, inputs: Tensors, cotangent: Tensor) -> Tensors:
    """``Jᵀ u`` for each input, by reverse mode. Shapes as ``inputs``."""
    with differentiable(), torch.enable_grad():
        leaves = tuple(x.detach().clone().requires_grad_() for x in inputs)
        output = function(*leaves)
        if not output.requires_grad:
            return tuple(torch.zeros_like(x) for x in inputs)
        return torch.autograd.grad(output, leaves, cotangent, materialize_grads=True)


def pushforward(
    function: Function,
    inputs: Tensors,
    tangents: Tensors,
    *,
    chunk_size: int | None = None,
    forward_func: object = None,
) -> Tensor:
    """``J ξ`` for several tangents at once.

    Args:
        function: maps the inputs to one tensor ``[N, ...]``.
        inputs: where to differentiate, each ``[N, ...]``.
        tangents: for each input the directions, ``[T, N, ...]``.
        chunk_size: at most so many tangents at a time.
        forward_func: the user's model; what works for it is remembered under this key.

    Returns:
        The derivatives ``[T, N, ...]``.

    Raises:
        UnsupportedModelError: neither forward mode nor reverse-over-reverse can differentiate the
            model.

    Example:
        >>> x, tangents = torch.tensor([[1.0], [2.0]]), torch.ones(3, 2, 1)
        >>> pushforward(torch.square, (x,), (tangents,)).shape
        torch.Size([3, 2, 1])
    """
    with _prepared, torch.no_grad():
        inputs = tuple(x.detach().clone() for x in inputs)
        names = list(_STRATEGIES)
        known = _recall(forward_func)
        if known is not None:
            names = names[names.index(known) :]
        if len(tangents[0]) == 1:  # gains nothing from vmap: plain dual tensors run on more models
            names = [name for name in names if name != "vmap"]
        errors: dict[str, RuntimeError] = {}
        for name in names:
            try:
                with _prepared if name == "stack" else differentiable():
                    result = _STRATEGIES[name](function, inputs, tangents, chunk_size)
            except RuntimeError as error:
                if is_out_of_memory(error):
                    raise
                errors[name] = error
            else:
                if errors:
                    _remember(forward_func, name)
                if errors and name == "double backward":
                    warnings.warn(
                        "The model has an operator without forward-mode derivative "
                        f"({first_line(errors['duals'])}); using reverse-over-reverse, "
                        "which gives the same numbers more slowly.",
                        stacklevel=2,
                    )
                return result
        function(*inputs)  # A model that fails by itself says best why.
        reasons = "; ".join(f"{name}: {first_line(error)}" for name, error in errors.items())
        raise UnsupportedModelError(
            f"The model runs but cannot be differentiated ({reasons}). "
            "Check that it is built from differentiable PyTorch operators."
        )


def _stacked(function: Function, inputs: Tensors, tangents: Tensors, chunk: int | None) -> Tensor:
    """All tangents ride on one evaluation of the model, by our own rules."""
    try:
        with without_fallback_warnings():
            return engine.pushforward(function, inputs, tangents, chunk)
    except Exception as error:
        # Whatever is wrong, another strategy knows better: a model's own errors come up there, too.
        if isinstance(error, engine.NoRule) or is_out_of_memory(error):
            raise
        raise engine.NoRule(f"{type(error).__name__}: {error}") from error


def _vmapped(function: Function, inputs: Tensors, tangents: Tensors, chunk: int | None) -> Tensor:
    """All tangents ride on one evaluation of the model."""

    def one(*tangent: Tensor) -> Tensor:
        derivative: Tensor = torch.func.jvp(function, inputs, tangent)[1]
        return derivative

    with without_fallback_warnings():
        batched: Any = torch.func.vmap(one, chunk_size=chunk, randomness="same")(*tangents)
    return check_output(batched)


@contextmanager
def without_fallback_warnings() -> Iterator[None]:
    """Users can do nothing about operators that ``vmap`` evaluates one by one."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
        yield


def _duals(function: Function, inputs: Tensors, tangents: Tensors, _chunk: int | None) -> Tensor:
    """One evaluation of the model for each tangent."""
    derivatives = []
    for tangent in zip(*tangents, strict=True):
        with forward_ad.dual_level():
            # In-place models write through the dual into its primal: give each its own.
            duals = [
                forward_ad.make_dual(x.clone(), v) for x, v in zip(inputs, tangent, strict=True)
            ]
            primal, derivative = forward_ad.unpack_dual(function(*duals))
        derivatives.append(torch.zeros_like(primal) if derivative is None else derivative)
    return torch.stack(derivatives)


def double_backward(
    function: Function, inputs: Tensors, tangents: Tensors, _chunk: int | None
) -> Tensor:
    """Reverse mode twice, for operators that lack forward mode."""
    with torch.enable_grad():
        leaves = tuple(x.detach().clone().requires_grad_() for x in inputs)
        output = function(*leaves)
        if not output.requires_grad:
            return output.new_zeros(len(tangents[0]), *output.shape)
        dummy = torch.zeros_like(output, requires_grad=True)
        gradients = torch.autograd.grad(
            output, leaves, dummy, create_graph=True, materialize_grads=True
        )
        linear = [i for i, g in enumerate(gradients) if g.requires_grad]
        derivatives = [
            torch.autograd.grad(
                [gradients[i] for i in linear],
                dummy,
                [tangent[i] for i in linear],
                retain_graph=True,
                materialize_grads=True,
            )[0]
            if linear
            else torch.zeros_like(output)
            for tangent in zip(*tangents, strict=True)
        ]
    return torch.stack(derivatives).detach()


_STRATEGIES: dict[str, Callable[[Function, Tensors, Tensors, int | None], Tensor]] = {
    "stack": _stacked,
    "vmap": _vmapped,
    "duals": _duals,
    "double backward": double_backward,
}

_known: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def _recall(forward_func: object) -> str | None:
    try:
        return _known.get(forward_func)
    except TypeError:  # not hashable or not weakly referable
        return None


def _remember(forward_func: object, strategy: str) -> None:
    with suppress(TypeError):
        _known[forward_func] = strategy
