r"""The control in closed form: how strongly a function reacts to tangents of scrambled phase.

A raw LEE says nothing of learning: it scales with the bandwidth of the model. The yardstick is its
response to tangents s that share a group's norm and spectrum but not its phases. With
:math:`g_o = J^T e_o` the gradient of output o, hats for the two-dimensional Fourier transform over
H × W, and one random phase a frequency, Hermitian and shared by the channels,

.. math::
    E ‖J s‖² = \sum_o E ⟨g_o, s⟩²
             = \sum_o \frac{1}{(HW)²} \sum_k \Big| \sum_c \overline{ĝ_{o,c}(k)}\, ξ̂_c(k) \Big|²

over all frequencies k; the self-conjugate ones carry a sign instead, which gives the same term. No
phase need be drawn, and one backward pass for an output serves every group: the expectations of
products ``⟨g, s_a⟩⟨g, s_b⟩`` form a matrix over the basis tangents, of which each group is a
quadratic form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from captum_lie.core.probes import Probes, directions
from captum_lie.errors import InvalidValueError, first_line

Tensors = tuple[Tensor, ...]

#: Backward passes for functions with more than 32 outputs, where nobody says how many.
DEFAULT_PROBES = Probes(8)
#: Responses below so many units of the machine precision, of what was added up, are zero.
ROUNDING = 16.0


class NoReverseModeError(RuntimeError):
    """The function's output does not carry gradients to its inputs."""


@dataclass(frozen=True)
class Control:
    """What tangents of scrambled phase do to a function.

    Attributes:
        mean: ``E‖J s‖² / dim`` of each example and group, ``[N, G]``.
        stderr: its standard error by probing; zero where every output was taken exactly.
        derivative: where every output was taken exactly, also what the tangents themselves do,
            ``J ξ``, from the same gradients: ``[G, N, K]``.
        jacobian_norm: ``‖J‖`` (Frobenius), which rounding is relative to, ``[N]``.
    """

    mean: Tensor
    stderr: Tensor
    derivative: Tensor | None = None
    jacobian_norm: Tensor | None = None


def spectral_control(
    function: Callable[..., Tensor],
    inputs: Tensors,
    tangents: Tensors,
    mixing: Tensor | None = None,
    *,
    probes: Probes = DEFAULT_PROBES,
    first_index: int = 0,
) -> Control:
    """Mean of ``‖J s‖² / dim`` over all phases of the tangents.

    Inputs of one size share their phases; those of different sizes do not.

    Args:
        function: maps the inputs to one tensor ``[N, ...]``; must be differentiable in reverse
            mode where it is called.
        inputs: each ``[N, C, H, W]``.
        tangents: of each input T basis tangents, ``[T, N, C, H, W]``.
        mixing: the groups as combinations of the basis, ``[G, T]``; None for the basis itself.
        probes: for functions with more than 32 outputs.
        first_index: with the seed it determines each example's probes, however examples are
            batched.

    Raises:
        NoReverseModeError: the function cannot be differentiated in reverse mode.
        ValueError: the probes have a tolerance.

    Example:
        The mean response of a sum of pixels to scrambled copies of a tangent is that of its
        constant part, whose phase is a sign:

        >>> x, tangent = torch.rand(1, 1, 3, 4), torch.rand(1, 1, 1, 3, 4)
        >>> control = spectral_control(lambda x: x.sum((1, 2, 3)), (x,), (tangent,))
        >>> torch.allclose(control.mean, tangent.sum().double().square())
        True
    """
    if probes.tolerance is not None:
        raise InvalidValueError(
            f"A control takes a fixed number of probes, no tolerance; got {probes.tolerance}."
        )
    n = len(inputs[0])
    leaves = tuple(x.detach().clone().requires_grad_() for x in inputs)
    with torch.enable_grad():
        output = function(*leaves).reshape(n, -1)
    if not output.requires_grad:
        raise NoReverseModeError("its output has no gradient")
    spectra = tuple(half_spectrum(t) for t in tangents)
    chosen = directions(output, probes, first_index=first_index)
    rows = None if mixing is None else mixing.to(output.device)

    def pullback(direction: Tensor) -> Tensors:
        try:
            return torch.autograd.grad(
                output, leaves, direction.to(output), retain_graph=True, materialize_grads=True
            )
        except NotImplementedError as error:
            raise NoReverseModeError(first_line(error)) from error

    def response(gradients: Tensors) -> tuple[Tensor, Tensor]:
        """``E⟨g, s⟩²`` of each group for one direction, ``[N, G]``, and ``‖g‖²``, ``[N]``."""
        products = phase_products(gradients, spectra)
        squares = torch.stack([g.flatten(1).double().square().sum(1) for g in gradients]).sum(0)
        if rows is None:
            return products.diagonal(dim1=1, dim2=2), squares
        return torch.einsum("ga,nab,gb->ng", rows, products, rows), squares

    columns = tuple(t.flatten(2).transpose(0, 1).double() for t in tangents)  # [N, T, pixels]
    dim = output.shape[1]
    responses, sizes = [], []
    derivative = None if chosen.n_signs else output.new_zeros(dim, n, len(tangents[0])).double()
    for direction, outputs in zip(chosen.exact(), chosen.order.T, strict=False):
        gradients = pullback(direction)
        energy, squares = response(gradients)
        responses.append(energy)
        sizes.append(squares)
        if derivative is not None:
            for tangent, gradient in zip(columns, gradients, strict=True):
                flat = gradient.flatten(1).double()[..., None]
                derivative[outputs, torch.arange(n)] += (tangent @ flat)[..., 0]
    mean, size = torch.stack(responses).sum(0), torch.stack(sizes).sum(0)
    spread = torch.zeros_like(mean)
    if chosen.n_signs:
        sampled = [response(pullback(d)) for d in chosen.signs()]
        samples = torch.stack([energy for energy, _ in sampled])
        mean = mean + samples.mean(0)
        size = size + torch.stack([squares for _, squares in sampled]).mean(0)
        spread = samples.std(0) / len(samples) ** 0.5
    if derivative is not None:
        derivative = derivative.permute(2, 1, 0)
        if rows is not None:
            derivative = torch.tensordot(rows, derivative, dims=1)
    length = torch.stack([c.square().sum(2) for c in columns]).sum(0)  # ‖ξ‖², [N, T]
    if rows is not None:
        length = length @ rows.square().T
    rounding = (ROUNDING * torch.finfo(output.dtype).eps) ** 2 * size[:, None] * length
    mean = torch.where(mean > rounding, mean, 0.0)
    return Control(mean / dim, spread / dim, derivative, size.sqrt())


def phase_products(gradients: Tensors, spectra: Tensors) -> Tensor:
    """``E⟨g, s_a⟩⟨g, s_b⟩`` over the phases, for every pair of tangents: ``[N, T, T]``, double.

    Args:
        gradients: for each input ``[N, C, H, W]``.
        spectra: for each input :func:`half_spectrum` of its tangents, ``[T, N, C, H, W // 2 + 1]``.
    """
    by_size: dict[tuple[int, int], Tensor] = {}
    for gradient, spectrum in zip(gradients, spectra, strict=True):
        height, width = gradient.shape[-2:]
        transformed = half_spectrum(gradient).conj()
        weights = column_weights(width).to(transformed.real).sqrt() / (height * width)
        transformed = transformed * weights
        product = spectrum[:, :, 0] * transformed[:, 0]
        for channel in range(1, spectrum.shape[2]):
            product.addcmul_(spectrum[:, :, channel], transformed[:, channel])
        size = (height, width)
        by_size[size] = by_size[size] + product if size in by_size else product
    total: Tensor | None = None
    for product in by_size.values():
        parts = torch.view_as_real(product).flatten(2).transpose(0, 1)
        products = (parts @ parts.mT).double()
        total = products if total is None else total + products
    assert total is not None
    return total


def half_spectrum(x: Tensor) -> Tensor:
    """Fourier transform of real images in at least single precision, ``[..., H, W // 2 + 1]``."""
    x = x if x.dtype == torch.float64 else x.float()
    spectrum: Tensor = torch.fft.rfft2(x.contiguous())  # torch 2.6 refuses expanded tensors
    return spectrum


def column_weights(width: int) -> Tensor:
    """How often each column of a half spectrum stands in the full one.

    The transform of a real image is Hermitian: every column stands for two, but for the first and,
    where the width is even, the last.

    Example:
        >>> x = torch.rand(5, 6)
        >>> half = half_spectrum(x).abs().square() * column_weights(6)
        >>> torch.allclose(half.sum(), torch.fft.fft2(x).abs().square().sum())
        True
    """
    weights = torch.full((width // 2 + 1,), 2.0)
    weights[0] = 1
    if width % 2 == 0:
        weights[-1] = 1
    return weights
