"""The Gram matrix of the affine Lie derivatives: LEE in every direction, and the worst one.

``Q_ab = E⟨L_a f, L_b f⟩ / dim`` over the six basis fields of aff(2) gives the LEE of any direction
c as ``cᵀ Q c``. Its top eigenvector is the affine motion, of unit coefficients, under which the
model is worst.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from captum_lie.core.groups import BASIS, Affine
from captum_lie.core.resampling import Border, Interpolation
from captum_lie.errors import InvalidValueError

_HALF = 0.5**0.5
#: Motions with names, as an orthonormal basis of the coefficients.
_NAMED: dict[str, tuple[float, ...]] = {
    "translation along x": (1, 0, 0, 0, 0, 0),
    "translation along y": (0, 1, 0, 0, 0, 0),
    "rotation": (0, 0, 0, _HALF, -_HALF, 0),
    "hyperbolic rotation": (0, 0, 0, _HALF, _HALF, 0),
    "scaling": (0, 0, -_HALF, 0, 0, -_HALF),
    "stretch of x against y": (0, 0, _HALF, 0, 0, -_HALF),
}


def grams_of(derivatives: Tensor) -> Tensor:
    """Gram matrices ``[N, 6, 6]`` of examples' derivatives ``[6, N, ...]``, mean over outputs."""
    flat = derivatives.flatten(2).transpose(0, 1)
    return flat @ flat.mT / flat.shape[2]


@dataclass(frozen=True)
class PrincipalDirections:
    """Eigenvalues and eigenvectors of a Gram matrix, the worst direction first.

    Attributes:
        eigenvalues: LEE along each direction, ``[6]``, descending.
        directions: unit coefficients in the basis of aff(2), one direction a row, ``[6, 6]``.

    Example:
        A model that sees shear and no other motion splits it evenly into the named ones:

        >>> only_shear = torch.diag(torch.tensor([0.0, 0, 0, 2, 0, 0]))
        >>> directions = principal_directions(only_shear)
        >>> directions.describe()
        '50% rotation, 50% hyperbolic rotation'
        >>> directions.worst.coefficients
        (0.0, 0.0, 0.0, 1.0, 0.0, 0.0)
    """

    eigenvalues: Tensor
    directions: Tensor

    def group(
        self,
        rank: int = 0,
        *,
        interpolation: Interpolation = "bilinear",
        border: Border | None = None,
    ) -> Affine:
        """The direction of the given rank (0 is the worst) as a group."""
        return Affine(
            tuple(self.directions[rank].tolist()),
            f"direction {rank + 1}: {self.describe(rank)}",
            interpolation=interpolation,
            border=border,
        )

    @property
    def worst(self) -> Affine:
        """The affine motion under which the model is worst, as a group."""
        return self.group(0)

    def describe(self, rank: int = 0, *, smallest: float = 0.05) -> str:
        """A direction in words: the named motions it consists of, with their shares.

        Shares are squared coefficients and sum to one; those below ``smallest`` are left out.
        """
        parts = sorted(((s, name) for name, s in self.shares(rank).items()), reverse=True)
        return ", ".join(f"{share:.0%} {name}" for share, name in parts if share >= smallest)

    def shares(self, rank: int = 0) -> dict[str, float]:
        """Squared coefficients of a direction by named motion; they sum to one."""
        names = torch.tensor(list(_NAMED.values()), dtype=torch.float64)
        squares = (names @ self.directions[rank].double().cpu()) ** 2
        return dict(zip(_NAMED, squares.tolist(), strict=True))


def principal_directions(gram: Tensor) -> PrincipalDirections:
    """Eigenvalues and directions of a Gram matrix.

    Args:
        gram: symmetric, ``[6, 6]``, as :meth:`captum_lie.LocalEquivarianceError.gram` returns it.

    Raises:
        ValueError: not a finite 6 × 6 matrix.

    Example:
        >>> directions = principal_directions(torch.diag(torch.tensor([4.0, 1, 0, 0, 0, 0])))
        >>> directions.describe()
        '100% translation along x'
        >>> directions.eigenvalues[0].item()
        4.0
    """
    if gram.shape != (len(BASIS), len(BASIS)) or not gram.isfinite().all():
        raise InvalidValueError(
            f"A Gram matrix is finite and 6 × 6; got shape {tuple(gram.shape)}."
        )
    values, vectors = torch.linalg.eigh((gram + gram.T) / 2)
    vectors = vectors.flip(1).T
    largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
    return PrincipalDirections(values.flip(0).clamp(min=0), vectors * largest.sign())
