"""Hooks around every module of a model: they see, and may replace, what goes in and comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn
from torch.utils import _pytree as pytree


@dataclass(frozen=True)
class Leaves:
    """The leaves of nested arguments or results, and how they belong together.

    Attributes:
        values: tensors and everything else.
        structure: how :meth:`rebuilt` puts them together.

    Example:
        >>> both = Leaves.of(([1, 2], {"three": 3}))
        >>> both.values, both.rebuilt([10, 20, 30])
        ([1, 2, 3], ([10, 20], {'three': 30}))
    """

    values: list[Any]
    structure: pytree.TreeSpec | Literal["tensor", "one argument"]

    @classmethod
    def of(cls, tree: Any) -> Leaves:
        if isinstance(tree, Tensor):  # what most modules return: nothing to take apart
            return cls([tree], "tensor")
        return cls(*pytree.tree_flatten(tree))

    @classmethod
    def of_arguments(cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Leaves:
        """The leaves of ``(args, kwargs)``."""
        if len(args) == 1 and isinstance(args[0], Tensor) and not kwargs:  # again, most
            return cls([args[0]], "one argument")
        return cls.of((args, kwargs))

    def rebuilt(self, values: list[Any]) -> Any:
        """The same structure of other leaves."""
        if self.structure == "tensor":
            return values[0]
        if self.structure == "one argument":
            return (values[0],), {}
        return pytree.tree_unflatten(values, self.structure)


#: ``(name, module, leaves of (args, kwargs))`` to the leaves that go on; None for the same.
Enter = Callable[[str, nn.Module, Leaves], list[Any] | None]
#: ``(name, leaves of the output)`` likewise.
Leave = Callable[[str, Leaves], list[Any] | None]


@contextmanager
def hooked(model: nn.Module, enter: Enter, leave: Leave) -> Iterator[None]:
    """Install hooks on every module of a model; they are removed on leaving."""
    with ExitStack() as installed:
        for name, module in model.named_modules():
            entering, leaving = _hooks(name, enter, leave)
            before = module.register_forward_pre_hook(entering, with_kwargs=True)
            installed.callback(before.remove)
            installed.callback(module.register_forward_hook(leaving).remove)
        yield


def _hooks(name: str, enter: Enter, leave: Leave) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The two hooks of one module."""

    def entering(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        leaves = Leaves.of_arguments(args, kwargs)
        changed = enter(name, module, leaves)
        return None if changed is None else leaves.rebuilt(changed)

    def leaving(_module: nn.Module, _args: Any, output: Any) -> Any:
        leaves = Leaves.of(output)
        changed = leave(name, leaves)
        return None if changed is None else leaves.rebuilt(changed)

    return entering, leaving


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Parameters without gradients: a tensor then requires one just if it depends on the input."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    try:
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
