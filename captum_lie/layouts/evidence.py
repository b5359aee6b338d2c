"""What is known where a tensor crosses a module's boundary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar

from torch import Tensor, nn

from captum_lie.layouts.layout import Layout

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Evidence:
    """What is known where a tensor crosses a module's boundary.

    Attributes:
        batch: number of examples in the pass.
        image: ``(H, W)`` of the model's input.
        known: layout that the same tensor, or one of the same shape before it, was found to have.
        prefixes: numbers of prefix tokens to consider.
        sources: at a module's output, the layouts of its inputs.
        side: of the module at which the tensor crosses.
        ancestors: the modules within which the module was called, the nearest first.
        extents: of each ancestor, the ``(h, w)`` of the image or grid that it got, if known.
        grids: ``(prefix, grid)`` of the tokens found before in this pass.

    Example:
        >>> evidence = Evidence(batch=2, image=(32, 32), grids=((1, (8, 8)),))
        >>> evidence.familiar(Layout("tokens", 1, (8, 8))), evidence.familiar(Layout("nchw"))
        (True, False)
    """

    batch: int
    image: tuple[int, int]
    known: Layout | None = None
    prefixes: tuple[int, ...] = (0, 1, 2, 3, 4, 5)
    sources: tuple[Layout, ...] = ()
    side: Literal["input", "output"] = "input"
    ancestors: tuple[nn.Module, ...] = ()
    extents: tuple[tuple[int, int] | None, ...] = ()
    grids: tuple[tuple[int, tuple[int, int] | None], ...] = ()

    def familiar(self, layout: Layout) -> bool:
        """Whether tokens on the same grid were found before."""
        return (layout.prefix, layout.grid) in self.grids

    def allows(self, layout: Layout, x: Tensor) -> bool:
        """Whether a tensor can have a layout, with one image for each example."""
        return layout.fits(x) and layout.examples(x) == self.batch

    def within(self, *classes: type[M]) -> tuple[M, tuple[int, int] | None] | None:
        """The nearest ancestor of these classes, with its extent; None outside of any."""
        extents = self.extents or (None,) * len(self.ancestors)
        for ancestor, extent in zip(self.ancestors, extents, strict=True):
            if isinstance(ancestor, classes):
                return ancestor, extent
        return None


def is_known(x: Tensor, evidence: Evidence) -> bool:
    """Whether the tensor is known to move with the image."""
    known = evidence.known
    return known is not None and known.moves and evidence.allows(known, x)
