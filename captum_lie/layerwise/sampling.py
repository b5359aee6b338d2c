"""Sampling-based baselines of single layers: does a module alone commute with a finite motion?

The comparison that the paper draws in Figure 4 (right): EQ-T, fractional EQ-T and EQ-R (Karras et
al. 2021) of every module call, on the inputs that it gets in the network. What a layer does to the
rest of the network, which LEE's decomposition measures, these numbers do not see.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Sized
from math import pi
from typing import Any

import torch
from torch import Tensor, nn

from captum_lie.core.captum_compat import progress
from captum_lie.core.loaders import images_of, to_model
from captum_lie.core.validation import check_eval_mode, check_images, one_of
from captum_lie.errors import InvalidTypeError, InvalidValueError
from captum_lie.layerwise.commuting import moved, sampled_errors
from captum_lie.layerwise.evaluation import evaluated, leaves_of
from captum_lie.layerwise.motions import MOTIONS, Motion, MotionOptions
from captum_lie.layerwise.tracing import Call, Overrides, check_overrides
from captum_lie.layerwise.tree import rows_of
from captum_lie.metrics.sinc import DEFAULT_KERNEL, SINC_BORDERS, SincBorder, SincKernel
from captum_lie.metrics.streaming import check_samples, uniform
from captum_lie.results.metrics import Array
from captum_lie.results.sampled import SampledResult

__all__ = ["LayerwiseSampledError", "moved"]


class LayerwiseSampledError:
    """EQ-T, fractional EQ-T and EQ-R of every module call, ``f_i(T x_i) − T f_i(x_i)``.

    Each call is repeated alone on moved copies of the inputs that it got in the network. Images and
    token grids move, each by the same share of its extent; prefix tokens and pooled vectors stay.
    Calls with an unknown layout give NaN. Costs ``n_samples`` forward passes for each metric and
    level of the module tree.

    Args:
        model: a module in evaluation mode that takes images.
        layouts: overrides by module name, as in :class:`captum_lie.LayerwiseEquivarianceError`.

    Source:
        Gruver et al., arXiv 2210.02984, App. D.1 and Figure 4 (right); Karras et al., "Alias-free
        generative adversarial networks" (2021), App. E.

    Example:
        >>> from captum_lie.examples import load_images, load_model
        >>> method = LayerwiseSampledError(load_model("cnn"))
        >>> (result,) = method.evaluate([load_images(2)[0]], "eq_t", border="circular")
        >>> table = result.to_dataframe().set_index("module")
        >>> [bool(table.loc[name, "mean"] < 1e-12) for name in ("stem.act", "stem.maxpool", "pool")]
        [True, True, True]
    """

    def __init__(self, model: nn.Module, layouts: Overrides | None = None) -> None:
        if not isinstance(model, nn.Module):
            raise InvalidTypeError(
                f"Layers belong to a torch.nn.Module; got {type(model).__name__}."
            )
        self.model = model
        self.layouts = dict(layouts or {})
        check_overrides(model, self.layouts)

    def evaluate(
        self,
        loader: Iterable[Any],
        metrics: str | Sequence[str] = ("eq_t", "eq_t_frac", "eq_r"),
        *,
        max_shift: float = 0.125,
        max_angle: float = pi,
        border: SincBorder = "reflect",
        kernel: SincKernel = DEFAULT_KERNEL,
        masked: bool = False,
        n_samples: int = 4,
        seed: int = 0,
        show_progress: bool = False,
    ) -> list[SampledResult]:
        """Measure every module call on a data set.

        Args:
            loader: yields images ``[N, C, H, W]``, or tuples whose first member they are.
            metrics: ``"eq_t"``: shifts by whole pixels of the coarsest grid at the call's
                boundaries, at least one; ``"eq_t_frac"``: by any fraction; ``"eq_r"``: rotations.
            max_shift: as a share of the image's sides.
            max_angle: in radians.
            border: what lies outside a grid: ``"reflect"``, ``"circular"`` or ``"zero"``.
            kernel: reads between pixels; see :class:`captum_lie.metrics.SincKernel`.
            masked: count only values whose motion depends on no border, as Karras et al. do. Small
                grids then have none and give NaN; otherwise all values count.
            n_samples: motions per image.
            seed: with an image's position in the data it determines its motions, the same for every
                module.
            show_progress: show a progress bar.

        Returns:
            A result for each metric.

        Raises:
            TypeError, ValueError: images, options or model mode are not usable; no images; the
                model makes other calls from batch to batch.
        """
        names = [m.strip() for m in metrics.split(",")] if isinstance(metrics, str) else metrics
        for name in names:
            one_of("metric", name, tuple(MOTIONS))
        one_of("border", border, SINC_BORDERS)
        check_samples(n_samples)
        check_eval_mode(self.model)
        options = MotionOptions(max_shift, max_angle, border, kernel)
        motions = {name: MOTIONS[name](options) for name in names}
        parts: dict[str, list[SampledResult]] = {name: [] for name in names}
        seen = 0
        total = len(loader) if isinstance(loader, Sized) else None
        for batch in progress(loader, "layers, sampled", total, show_progress):
            images = to_model(self.model, images_of(batch))
            check_images(images)
            index = torch.arange(seen, seen + len(images)).numpy()
            draws = {name: uniform(f"layer_{name}", seed, index, (n_samples, 2)) for name in names}
            for name, result in self._measure(images, motions, draws, masked).items():
                parts[name].append(result)
            seen += len(images)
        if not seen:
            raise InvalidValueError("The loader yielded no images: there is nothing to evaluate.")
        return [SampledResult.concatenate(parts[name]) for name in names]

    def _measure(
        self, images: Tensor, motions: dict[str, Motion], draws: dict[str, Array], masked: bool
    ) -> dict[str, SampledResult]:
        """All metrics of one batch, from one evaluation with every call repeated within it."""
        found: dict[Call, dict[str, Tensor]] = {}

        def repeat(call: Call) -> None:
            with torch.no_grad():
                found[call] = {
                    name: sampled_errors(call, motion, draws[name], masked=masked)
                    for name, motion in motions.items()
                }

        leaves = leaves_of((images,))
        with evaluated(
            self.model, self.model, leaves, on_call=repeat, overrides=self.layouts
        ) as evaluation:
            calls = evaluation.calls
        rows = rows_of(calls)
        return {
            name: SampledResult(rows, name, *torch.stack([found[c][name] for c in calls], 1).cpu())
            for name in motions
        }
