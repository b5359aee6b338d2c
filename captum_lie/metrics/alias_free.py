"""EQ-T, fractional EQ-T and EQ-R: mean squared change under shifts and rotations, MSE and PSNR."""

from __future__ import annotations

from math import pi

import numpy as np
import torch
from torch import Tensor

from captum_lie.core.derivative import OutputFn
from captum_lie.core.outputs import softmax
from captum_lie.errors import InvalidValueError
from captum_lie.layouts import TRIVIAL, OutputLayout, as_output_layout
from captum_lie.metrics.motion import Motion, Options, Parameters, Size, measure_motion
from captum_lie.metrics.shifts import integer_shift
from captum_lie.metrics.sinc import (
    DEFAULT_KERNEL,
    SincBorder,
    SincKernel,
    bandlimit,
    fractional_shift,
    rotate,
)
from captum_lie.metrics.streaming import Images, Model
from captum_lie.results.metrics import Array, MetricResult


def eq_t(
    model: Model,
    images: Images,
    *,
    max_shift: float = 0.125,
    border: SincBorder = "zero",
    output_fn: OutputFn | None = softmax,
    output_layout: OutputLayout = TRIVIAL,
    margin: int = 0,
    data_range: float = 1.0,
    n_samples: int = 10,
    seed: int = 0,
    batch_size: int = 32,
    show_progress: bool = False,
) -> MetricResult:
    """EQ-T: mean squared change of the output under integer translations.

    For class scores ``E (f(T x) − f(x))²``, for image-like outputs ``E (f(T x) − T f(x))²`` over
    the pixels where ``T f(x)`` is known. The mean is over images, shifts and output values;
    ``.psnr`` gives it in dB, infinite for an exactly equivariant model.

    Args:
        model: images ``[N, C, H, W]`` to scores ``[N, K]`` or maps ``[N, K, H', W']``; any
            callable.
        images: a tensor, or a loader of tensors or tuples whose first member they are.
        max_shift: largest shift as a share of the image's width and height.
        border: what lies outside the image: ``"zero"`` (as in both papers), ``"reflect"`` or
            ``"circular"``.
        output_fn: applied to the output; softmax over dimension 1 by default, None for none.
        output_layout: :data:`captum_lie.layouts.NCHW` or another layout with spatial axes if the
            output should move with the input. Shifts are then multiples of the model's stride, so
            that they are whole pixels of the output, too; prefix tokens do not count.
        margin: output pixels beside the border that do not count, of outputs that move: half
            the model's receptive field and ``max_shift`` keep the border rule out of the number.
        data_range: largest minus smallest possible output, for ``.psnr``; 2 for images in [-1, 1].
        n_samples: shifts per image.
        seed: with an image's position in the data it determines its shifts.
        batch_size: images per call of the model.
        show_progress: show a progress bar.

    Raises:
        TypeError, ValueError: images, model output or options are not usable; no shift of a whole
            pixel is within reach; no output pixel is left to compare.

    Source:
        Karras et al., "Alias-free generative adversarial networks" (2021), App. E.1; Gruver et
        al., arXiv 2210.02984, App. D.1 and D.4, for class scores.

    Example:
        >>> x = torch.rand(2, 3, 16, 16, dtype=torch.float64)
        >>> eq_t(lambda x: x.mean((2, 3)), x, border="circular", output_fn=None).psnr > 200
        True
    """

    def plan(draws: Array, size: Size, out: Size) -> Parameters:
        step = [_stride(*sides) for sides in zip(size, out, strict=True)]
        reach = [int(max_shift * side) // k for side, k in zip(size, step, strict=True)]
        if not any(reach):
            raise InvalidValueError(
                f"max_shift={max_shift} of images {size[0]} × {size[1]} is less than one step of "
                f"{max(step)} px, so nothing would move. Raise max_shift or pass larger images."
            )
        # Every whole number of steps within reach is equally likely.
        counts = [
            np.floor((draws[..., i] + 1) * (reach[1 - i] + 0.5)) - reach[1 - i] for i in (0, 1)
        ]
        return {"dx_px": counts[0] * step[1], "dy_px": counts[1] * step[0]}

    def act(x: Tensor, p: Parameters, scale: tuple[float, float]) -> tuple[Tensor, Tensor]:
        dx, dy = np.round(p["dx_px"] * scale[1]), np.round(p["dy_px"] * scale[0])
        return integer_shift(x, dx, dy, border)

    return measure_motion(
        Motion("eq_t", 2, plan, act, parameters={"max_shift": max_shift}),
        model,
        images,
        Options(
            border,
            output_fn,
            as_output_layout(output_layout),
            margin,
            data_range,
            n_samples,
            seed,
            batch_size,
            show_progress,
        ),
    )


def eq_t_frac(
    model: Model,
    images: Images,
    *,
    max_shift: float = 0.125,
    border: SincBorder = "zero",
    kernel: SincKernel = DEFAULT_KERNEL,
    output_fn: OutputFn | None = softmax,
    output_layout: OutputLayout = TRIVIAL,
    margin: int = 0,
    data_range: float = 1.0,
    n_samples: int = 10,
    seed: int = 0,
    batch_size: int = 32,
    show_progress: bool = False,
) -> MetricResult:
    """Fractional EQ-T: as :func:`eq_t`, with shifts by any fraction of a pixel.

    Images are read between their pixels by a windowed sinc (Karras et al. 2021, App. E.2). Pixels
    whose kernel reaches beyond the border do not count in image-like outputs.

    Args:
        kernel: the windowed sinc; see :class:`captum_lie.metrics.SincKernel`.
        model, images, and the rest: as for :func:`eq_t`.

    Example:
        >>> from captum_lie.layouts import NCHW
        >>> x = torch.rand(2, 3, 16, 16, dtype=torch.float64)
        >>> eq_t_frac(lambda x: x, x, output_fn=None, output_layout=NCHW).psnr > 200
        True
    """

    def plan(draws: Array, size: Size, _out: Size) -> Parameters:
        reach = max_shift * size[1], max_shift * size[0]
        return {"dx_px": draws[..., 0] * reach[0], "dy_px": draws[..., 1] * reach[1]}

    def act(x: Tensor, p: Parameters, scale: tuple[float, float]) -> tuple[Tensor, Tensor]:
        dx, dy = torch.from_numpy(p["dx_px"] * scale[1]), torch.from_numpy(p["dy_px"] * scale[0])
        return fractional_shift(x, dx, dy, border, kernel)

    return measure_motion(
        Motion("eq_t_frac", 2, plan, act, parameters={"max_shift": max_shift} | _spelled(kernel)),
        model,
        images,
        Options(
            border,
            output_fn,
            as_output_layout(output_layout),
            margin,
            data_range,
            n_samples,
            seed,
            batch_size,
            show_progress,
        ),
    )


def eq_r(
    model: Model,
    images: Images,
    *,
    max_angle: float = pi,
    border: SincBorder = "zero",
    kernel: SincKernel = DEFAULT_KERNEL,
    output_fn: OutputFn | None = softmax,
    output_layout: OutputLayout = TRIVIAL,
    margin: int = 0,
    data_range: float = 1.0,
    n_samples: int = 10,
    seed: int = 0,
    batch_size: int = 32,
    show_progress: bool = False,
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
        >>> x = torch.rand(2, 3, 48, 48)
        >>> eq_r(lambda x: x.mean((2, 3)), x, border="reflect").n
        2
    """

    def plan(draws: Array, _size: Size, _out: Size) -> Parameters:
        return {"angle_rad": draws[..., 0] * max_angle}

    def act(x: Tensor, p: Parameters, _scale: tuple[float, float]) -> tuple[Tensor, Tensor]:
        return rotate(x, torch.from_numpy(p["angle_rad"]), border, kernel)

    def match(x: Tensor, p: Parameters) -> tuple[Tensor, Tensor]:
        return bandlimit(x, torch.from_numpy(p["angle_rad"]), border, kernel)

    parameters = {"max_angle": max_angle} | _spelled(kernel)
    return measure_motion(
        Motion("eq_r", 1, plan, act, match, parameters=parameters),
        model,
        images,
        Options(
            border,
            output_fn,
            as_output_layout(output_layout),
            margin,
            data_range,
            n_samples,
            seed,
            batch_size,
            show_progress,
        ),
    )


def _stride(side: int, output_side: int) -> int:
    """Input pixels per output pixel; 1 where the output is the finer grid."""
    if side % output_side and output_side % side:
        raise InvalidValueError(
            f"Integer shifts need an output grid that divides the image's; got {output_side} "
            f"output pixels for {side}. Use eq_t_frac, or images of a suitable size."
        )
    return max(1, side // output_side)


def _spelled(kernel: SincKernel) -> dict[str, object]:
    return {"window": kernel.window, "half_width": kernel.half_width}
