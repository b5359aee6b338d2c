"""``LayerLieDerivative``: where within a layer's output the equivariance error arises."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import nn

from captum_lie.core.captum_compat import (
    ForwardFunc,
    GradientAttribution,
    Inputs,
    LayerAttribution,
    TargetType,
    as_tuple,
    batches,
    log_usage,
)
from captum_lie.core.groups import DEFAULT_GROUP, GroupLike, get_group
from captum_lie.core.validation import (
    check_eval_mode,
    check_inputs,
    check_internal_batch_size,
    one_of,
)
from captum_lie.errors import InvalidTypeError, InvalidValueError
from captum_lie.layerwise.terms import Terms, concatenated, summed, terms_of
from captum_lie.layerwise.tracing import Overrides, check_overrides
from captum_lie.layerwise.visits import visits_of

Layer = nn.Module | str


class LayerLieDerivative(LayerAttribution, GradientAttribution):
    """Attribution of a layer's contribution to the Lie derivative, to the layer's output.

    ``a = g(y) ⊙ (J ξ(x) - ξ(y))`` for the layer ``y = f_i(x)`` with Jacobian J, where g is the
    gradient of the target output. It sums to ``⟨e_k, C_i⟩``, what the layer contributes to
    ``L f_k`` (Gruver et al., arXiv 2210.02984, Eq. 6).

    Args:
        forward_func: the model, or any callable of tensors that calls the layer.
        layer: a module, a list of modules, or names of modules within ``forward_func``.
        device_ids: accepted as everywhere in Captum. A ``DataParallel`` model is evaluated on its
            first device, with the same result.
        layouts: overrides by module name: a layout for both sides, or ``(input, output)`` with None
            for what should be inferred (see :mod:`captum_lie.layouts`). Where ``forward_func`` does
            not contain the layer as a module, its name is ``"layer"``, in a list ``"layer0"``, ...

    Raises:
        TypeError, ValueError: no such module, or layouts are not usable.

    Example:
        >>> from captum_lie.examples import load_images, load_model
        >>> images, _ = load_images(2)
        >>> method = LayerLieDerivative(load_model("cnn"), "stem.maxpool")
        >>> attribution, delta = method.attribute(images, target=1, return_convergence_delta=True)
        >>> attribution.shape[0], bool(delta.abs().max() < 1e-4)
        (2, True)
    """

    def __init__(
        self,
        forward_func: ForwardFunc,
        layer: Layer | Sequence[Layer] | None,
        device_ids: list[int] | None = None,
        layouts: Overrides | None = None,
    ) -> None:
        layers = _resolve(forward_func, layer)
        LayerAttribution.__init__(self, forward_func, layers, device_ids)
        GradientAttribution.__init__(self, forward_func)
        self.layouts = dict(layouts or {})

    @log_usage(part_of_slo=True)
    def attribute(
        self,
        inputs: Inputs,
        target: TargetType = None,
        additional_forward_args: object = None,
        group: GroupLike = DEFAULT_GROUP,
        internal_batch_size: int | None = None,
        attribute_to_layer_input: bool = False,
        return_convergence_delta: bool = False,
    ) -> Any:
        """Attribute the layer's contribution to its output.

        Args:
            inputs: images ``[N, C, H, W]``, or a tuple of them that are transformed together.
            target: which output, in any form that Captum knows.
            additional_forward_args: passed on after the inputs, not differentiated.
            group: a group or its name (``"rotation"``, ``"translation_x"``, ...).
            internal_batch_size: at most so many examples at a time.
            attribute_to_layer_input: instead return the flux ``g ⊙ ξ(x)`` at the layer's input,
                g being the gradient through this layer only. It sums to the Lie derivative of the
                rest of the network from there on (all of it, if nothing runs beside the layer).
            return_convergence_delta: also return ``delta [N]``, see
                :meth:`compute_convergence_delta`.

        Returns:
            Attributions shaped like the layer's output (or input), a tuple where it is several
            tensors (only those that depend on the images); for a list of layers a list. In units
            of the output per unit of the group's parameter. A layer that is called several times
            gives the sum over its calls.

        Raises:
            TypeError, ValueError: images, group or model mode are not usable; the layer did not
                run, its layout is unknown, or its calls differ in shape.
            AssertionError: bad target (by Captum).
        """
        terms = self._all_terms(
            inputs,
            target,
            additional_forward_args,
            group,
            internal_batch_size,
            to_input=attribute_to_layer_input,
            check=return_convergence_delta,
        )
        results = [t.attributions if len(t.attributions) > 1 else t.attributions[0] for t in terms]
        result = results if isinstance(self.layer, list) else results[0]
        if not return_convergence_delta:
            return result
        deltas = [t.delta(t.attributions) for t in terms]
        return result, deltas if isinstance(self.layer, list) else deltas[0]

    def has_convergence_delta(self) -> bool:
        """True: the layer's forward mode is checked against the network's reverse mode."""
        return True

    def compute_convergence_delta(
        self,
        attributions: Any,
        inputs: Inputs,
        target: TargetType = None,
        additional_forward_args: object = None,
        group: GroupLike = DEFAULT_GROUP,
        internal_batch_size: int | None = None,
        attribute_to_layer_input: bool = False,
    ) -> Any:
        """Sum of the attributions minus the same number by the other mode, ``[N]``.

        At the output that is ``⟨g_i, ξ(x_i)⟩ - ⟨g_{i+1}, ξ(x_{i+1})⟩``, at the input
        ``⟨g_{i+1}, J_i ξ(x_i)⟩``. All are exact, so anything beyond rounding means that an
        operator's derivative is wrong. For a list of layers a list of deltas.
        """
        terms = self._all_terms(
            inputs,
            target,
            additional_forward_args,
            group,
            internal_batch_size,
            to_input=attribute_to_layer_input,
            check=True,
        )
        given = attributions if isinstance(self.layer, list) else [attributions]
        deltas = [t.delta(as_tuple(a)) for a, t in zip(given, terms, strict=True)]
        return deltas if isinstance(self.layer, list) else deltas[0]

    def _all_terms(
        self,
        inputs: Inputs,
        target: TargetType,
        additional_forward_args: object,
        group: GroupLike,
        internal_batch_size: int | None,
        *,
        to_input: bool,
        check: bool,
    ) -> list[Terms]:
        xs, resolved = as_tuple(inputs), get_group(group)
        check_inputs(xs)
        check_internal_batch_size(internal_batch_size)
        check_eval_mode(self.forward_func)
        layers = self.layer if isinstance(self.layer, list) else [self.layer]
        root = _root(self.forward_func, layers)
        check_eval_mode(root)
        check_overrides(root, self.layouts)
        terms = partial(terms_of, group=resolved, to_input=to_input, check=check)
        parts = []
        for x, args, chosen in batches(xs, additional_forward_args, target, internal_batch_size):
            visits = visits_of(root, layers, x, chosen, args, self.layouts)
            parts.append([summed([terms(visit) for visit in calls]) for calls in visits])
        return [concatenated(part) for part in zip(*parts, strict=True)]


class _Around(nn.Module):
    """A callable that calls modules which it does not own, so that they can be traced in it."""

    def __init__(self, forward_func: ForwardFunc, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.function = [forward_func]  # in a list: a module here would bring its own names
        for i, layer in enumerate(layers):
            self.add_module(f"layer{i}" if len(layers) > 1 else "layer", layer)

    def forward(self, *args: Any) -> Any:
        return self.function[0](*args)


def _root(forward_func: ForwardFunc, layers: Sequence[nn.Module]) -> nn.Module:
    """The module within which the layers run."""
    for layer in layers:
        if not isinstance(layer, nn.Module):
            raise InvalidTypeError(f"A layer is a torch.nn.Module; got {type(layer).__name__}.")
    model = _unwrapped(forward_func)
    known = set(map(id, model.modules())) if isinstance(model, nn.Module) else set()
    if isinstance(model, nn.Module) and all(id(layer) in known for layer in layers):
        return model
    return _Around(forward_func, layers)


def _unwrapped(forward_func: ForwardFunc) -> ForwardFunc:
    """Replicas run in threads, where calls have no order: one device gives the same numbers."""
    return forward_func.module if isinstance(forward_func, nn.DataParallel) else forward_func


def _resolve(forward_func: ForwardFunc, layer: Any) -> Any:
    """Names replaced by the modules that they name."""
    if isinstance(layer, list | tuple):
        return [_resolve(forward_func, one) for one in layer]
    if not isinstance(layer, str):
        return layer
    model = _unwrapped(forward_func)
    if not isinstance(model, nn.Module):
        raise InvalidValueError(
            f"The layer {layer!r} is given by name, but forward_func is not a torch.nn.Module; "
            "pass the module itself."
        )
    if model is not forward_func:
        layer = layer.removeprefix("module.")
    modules = dict(model.named_modules(remove_duplicate=False))
    one_of("layer", layer, [name for name in modules if name])
    return modules[layer]
