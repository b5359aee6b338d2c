"""Where in the image modules add to the equivariance error: maps of a decomposition's rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from captum_lie.core.derivative import ModelFunction, OutputFn, lie_derivatives
from captum_lie.core.groups import GroupLike, get_group
from captum_lie.core.outputs import softmax
from captum_lie.core.validation import one_of
from captum_lie.layerwise.terms import terms_of
from captum_lie.layerwise.tracing import Overrides
from captum_lie.layerwise.visits import visits_of
from captum_lie.results.layer_maps import LayerMap


def layer_maps(
    model: nn.Module,
    images: Tensor,
    modules: Sequence[str],
    group: GroupLike = "translation_x",
    *,
    output_fn: OutputFn | None = softmax,
    layouts: Overrides | None = None,
) -> list[LayerMap]:
    """Maps ``g ⊙ (J ξ(x) − ξ(f(x)))`` of modules for the direction ``L f / dim`` of the output.

    They sum to what :class:`captum_lie.LayerwiseEquivarianceError` gives for ``aligned``.

    Args:
        model: in evaluation mode; images to class scores.
        images: ``[N, C, H, W]``.
        modules: names of modules in the model; one that is called several times gives several maps.
        group: a group or its name.
        output_fn, layouts: as for :class:`captum_lie.LayerwiseEquivarianceError`.

    Raises:
        ValueError: unknown names, a module that never ran, an unknown layout.

    Example:
        >>> from captum_lie import LayerwiseEquivarianceError
        >>> from captum_lie.examples import load_images, load_model
        >>> model, (images, _) = load_model("cnn"), load_images(1)
        >>> (found,) = layer_maps(model, images, ["stem.maxpool"])
        >>> result = LayerwiseEquivarianceError(model).attribute(images)
        >>> row = [r.module for r in result.rows].index("stem.maxpool")
        >>> found.attribution.shape, found.layout.kind
        (torch.Size([1, 16, 16, 16]), 'nchw')
        >>> bool(torch.isclose(found.attribution.double().sum(), result.contributions[row, 0]))
        True
    """
    known = dict(model.named_modules())
    for name in modules:
        one_of("module", name, [n for n in known if n])
    resolved = get_group(group)
    scores = nn.Sequential(model) if output_fn is None else _Then(model, output_fn)
    direction = torch.cat(list(lie_derivatives(ModelFunction(scores), (images,), [resolved])), 1)[0]
    root = _Along(scores, direction / direction[0].numel())
    inner = "model.0." if output_fn is None else "model.model."
    overrides = {inner + name: layout for name, layout in (layouts or {}).items()}
    visits = visits_of(root, [known[name] for name in modules], (images,), None, None, overrides)
    maps = []
    for name, calls in zip(modules, visits, strict=True):
        for call, visit in enumerate(calls):
            terms = terms_of(visit, resolved, to_input=False, check=False)
            if len(terms.attributions) == 1:
                maps.append(LayerMap(name, call, terms.attributions[0], terms.layouts[0]))
    return maps


class _Then(nn.Module):
    """A model and a function after it."""

    def __init__(self, model: nn.Module, function: OutputFn) -> None:
        super().__init__()
        self.model, self.function = model, function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.model(x))


class _Along(nn.Module):
    """A model's output along a direction of its own for each example, ``[N]``."""

    direction: Tensor

    def __init__(self, model: nn.Module, direction: Tensor) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("direction", direction)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("nk,nk->n", self.model(x).flatten(1), self.direction.flatten(1))
