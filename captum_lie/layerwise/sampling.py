"""Sampling-based baselines of single layers: does a module alone commute with a finite motion?

The comparison that the paper draws in Figure 4 (right): EQ-T, fractional EQ-T and EQ-R (Karras et
al. 2021) of every module call, on the inputs that it gets in the network. What a layer does to the
rest of the network, which LEE's decomposition measures, these numbers do not see.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from captum_lie.core.loaders import over_batches
from captum_lie.core.validation import check_eval_mode, check_images, one_of
from captum_lie.errors import InvalidTypeError
from captum_lie.layerwise.commuting import sampled_errors
from captum_lie.layerwise.evaluation import evaluated, leaves_of
from captum_lie.layerwise.motions import METRICS, Motions, MotionsOptions
from captum_lie.layerwise.tracing import Call, Overrides, check_overrides
from captum_lie.layerwise.tree import rows_of
from captum_lie.metrics.motions import Motion
from captum_lie.results.metrics import Array
from captum_lie.results.sampled import SampledResult

if TYPE_CHECKING:
    from typing_extensions import Unpack


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
        metrics: str | Sequence[str] = METRICS,
        *,
        masked: bool = False,
        show_progress: bool = False,
        **options: Unpack[MotionsOptions],
    ) -> list[SampledResult]:
        """Measure every module call on a data set.

        Args:
            loader: yields images ``[N, C, H, W]``, or tuples whose first member they are.
            metrics: ``"eq_t"``: shifts by whole pixels of the coarsest grid at the call's
                boundaries, at least one; ``"eq_t_frac"``: by any fraction; ``"eq_r"``: rotations.
            masked: count only values whose motion depends on no border, as Karras et al. do. Small
                grids then have none and give NaN; otherwise all values count.
            show_progress: show a progress bar.
            max_shift: as a share of the image's sides (not in pixels); 1/8 by default.
            max_angle: in radians; π by default.
            border: what lies outside a grid: ``"reflect"`` (the default), ``"circular"`` or
                ``"zero"``.
            kernel: reads between pixels; see :class:`captum_lie.metrics.SincKernel`.
            n_samples: motions per image; 4 by default.
            seed: with an image's position in the data it determines its motions, the same for every
                module; 0 by default.

        Returns:
            A result for each metric.

        Raises:
            TypeError, ValueError: images, options or model mode are not usable; no images; the
                model makes other calls from batch to batch.
        """
        names = [m.strip() for m in metrics.split(",")] if isinstance(metrics, str) else metrics
        for name in names:
            one_of("metric", name, METRICS)
        how = Motions(**options)
        motions = how.of(names)
        check_eval_mode(self.model)
        parts: dict[str, list[SampledResult]] = {name: [] for name in names}
        for first, images, _ in over_batches(
            self.model, loader, "layers, sampled", show_progress=show_progress
        ):
            check_images(images)
            index = np.arange(first, first + len(images))
            draws = {name: how.draws(name, m.n_draws, index) for name, m in motions.items()}
            for name, result in self._measure(images, motions, draws, masked).items():
                parts[name].append(result)
        return [SampledResult.concatenate(parts[name]) for name in names]

    def _measure(
        self, images: Tensor, motions: dict[str, Motion], draws: dict[str, Array], masked: bool
    ) -> dict[str, SampledResult]:
        """All metrics of one batch, from one evaluation with every call repeated within it."""
        sums: dict[Call, dict[str, Tensor]] = {}

        def repeat(call: Call) -> None:
            with torch.no_grad():
                sums[call] = {
                    name: sampled_errors(call, motion, draws[name], masked=masked)
                    for name, motion in motions.items()
                }

        with evaluated(
            self.model, self.model, leaves_of((images,)), on_call=repeat, overrides=self.layouts
        ) as evaluation:
            calls = evaluation.calls
        rows = rows_of(calls)
        return {
            name: SampledResult(rows, name, *torch.stack([sums[c][name] for c in calls], 1).cpu())
            for name in motions
        }
