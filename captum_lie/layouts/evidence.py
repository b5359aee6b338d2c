"""What is known where a tensor crosses a module's boundary."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from captum_lie.layouts.layout import Layout


@dataclass(frozen=True)
class Evidence:
    """What is known where a tensor crosses a module's boundary.

    Attributes:
        batch: number of examples in the pass.
        image: ``(H, W)`` of the model's input.
        known: layout that the same tensor, or one of the same shape before it, was found to have.
        prefixes: numbers of prefix tokens to consider.
        sources: at a module's output, the layouts of its inputs.
        ancestors: the modules within which the module was called, the nearest first.
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
    ancestors: tuple[nn.Module, ...] = ()
    grids: tuple[tuple[int, tuple[int, int] | None], ...] = ()

    def familiar(self, layout: Layout) -> bool:
        """Whether tokens on the same grid were found before."""
        return (layout.prefix, layout.grid) in self.grids


def is_known(x: Tensor, evidence: Evidence) -> bool:
    """Whether the tensor is known to move with the image."""
    return evidence.known is not None and evidence.known.moves and evidence.known.fits(x)
