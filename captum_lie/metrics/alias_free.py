"""EQ-T, fractional EQ-T and EQ-R: mean squared change under shifts and rotations, MSE and PSNR."""

from __future__ import annotations

from math import pi
from typing import TYPE_CHECKING

from captum_lie.metrics.comparison import Comparison, ComparisonOptions, motion_error
from captum_lie.metrics.motions import FractionalShift, IntegerShift, Turn
from captum_lie.metrics.sinc import DEFAULT_KERNEL, SincBorder, SincKernel
from captum_lie.metrics.streaming import Images, Model
from captum_lie.results.metrics import MetricResult

if TYPE_CHECKING:
    from typing_extensions import Unpack


def eq_t(
    model: Model,
    images: Images,
    *,
    max_shift: float = 0.125,
    border: SincBorder = "zero",
    **options: Unpack[ComparisonOptions],
) -> MetricResult:
    """EQ-T: mean squared change of the output under integer translations.

    For class scores ``E (f(T x) − f(x))²``, for image-like outputs ``E (f(T x) − T f(x))²`` over
    the pixels where ``T f(x)`` is known. The mean is over images, shifts and output values;
    ``.psnr`` gives it in dB, infinite for an exactly equivariant model.

    Args:
        model: images ``[N, C, H, W]`` to scores ``[N, K]`` or maps ``[N, K, H', W']``; any
            callable.
        images: a tensor, or a loader of tensors or tuples whose first member they are.
        max_shift: largest shift, as a share of the image's width and height (not in pixels).
        border: what lies outside the image: ``"zero"`` (as in both papers), ``"reflect"`` or
            ``"circular"``.
        output_fn: applied to the output; softmax over dimension 1 by default, None for none.
        output_layout: :data:`captum_lie.layouts.NCHW` or another layout with spatial axes if the
            output should move with the input; ``TRIVIAL`` by default. Shifts are then multiples of
            the model's stride, so that they are whole pixels of the output; prefix tokens do not
            count.
        margin: output pixels beside the border that do not count, of outputs that move; none are.
            Half the model's receptive field and ``max_shift`` keep the border rule out of the
            number.
        data_range: largest minus smallest possible output, for ``.psnr``; 1 by default, 2 for
            images in [-1, 1].
        n_samples: shifts per image; 10 by default.
        seed: with an image's position in the data it determines its shifts; 0 by default.
        batch_size: images per call of the model; 32 by default.
        first_index: position of the first image in the data, for a part of a larger set.
        show_progress: show a progress bar.

    Raises:
        TypeError, ValueError: images, model output or options are not usable; no shift of a whole
            pixel is within reach; no output pixel is left to compare.

    Source:
        Karras et al., "Alias-free generative adversarial networks" (2021), App. E.1; Gruver et
        al., arXiv 2210.02984, App. D.1 and D.4, for class scores.

    Example:
        >>> import torch
        >>> from captum_lie.layouts import NCHW
        >>> x = torch.rand(2, 3, 16, 16, dtype=torch.float64)
        >>> eq_t(lambda x: x.mean((2, 3)), x, border="circular", output_fn=None).psnr > 200
        True
    """

    motion = IntegerShift(max_shift=max_shift, border=border)
    return motion_error("eq_t", motion, model, images, Comparison(**options))


def eq_t_frac(
    model: Model,
    images: Images,
    *,
    max_shift: float = 0.125,
    border: SincBorder = "zero",
    kernel: SincKernel = DEFAULT_KERNEL,
    **options: Unpack[ComparisonOptions],
) -> MetricResult:
    """Fractional EQ-T: as :func:`eq_t`, with shifts by any fraction of a pixel.

    Images are read between their pixels by a windowed sinc (Karras et al. 2021, App. E.2). Pixels
    whose kernel reaches beyond the border do not count in image-like outputs.

    Args:
        kernel: the windowed sinc; see :class:`captum_lie.metrics.SincKernel`.
        model, images, and the rest: as for :func:`eq_t`.

    Example:
        >>> import torch
        >>> from captum_lie.layouts import NCHW
        >>> x = torch.rand(2, 3, 16, 16, dtype=torch.float64)
        >>> eq_t_frac(lambda x: x, x, output_fn=None, output_layout=NCHW).psnr > 200
        True
    """

    motion = FractionalShift(max_shift=max_shift, border=border, kernel=kernel)
    return motion_error("eq_t_frac", motion, model, images, Comparison(**options))


def eq_r(
    model: Model,
    images: Images,
    *,
    max_angle: float = pi,
    border: SincBorder = "zero",
    kernel: SincKernel = DEFAULT_KERNEL,
    **options: Unpack[ComparisonOptions],
) -> MetricResult:
    """EQ-R: as :func:`eq_t`, under rotations by any angle up to ``max_angle`` (radians).

    Rotation is rigid, about the centre, on any aspect ratio (see
    :func:`captum_lie.metrics.rotate`). For image-like outputs ``f(T x)`` loses the frequencies
    that ``T f(x)`` cannot have (Karras et al. 2021, App. E.3). The windowed sinc needs a margin of
    four half-widths in such outputs.

    Args:
        max_angle: in radians; the whole circle by default.
        kernel: the windowed sinc; see :class:`captum_lie.metrics.SincKernel`.
        model, images, and the rest: as for :func:`eq_t`.

    Example:
        >>> import torch
        >>> x = torch.rand(2, 3, 48, 48)
        >>> eq_r(lambda x: x.mean((2, 3)), x, border="reflect").n
        2
    """

    motion = Turn(max_angle=max_angle, border=border, kernel=kernel)
    return motion_error("eq_r", motion, model, images, Comparison(**options))
