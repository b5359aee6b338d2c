"""Inference of layouts from evidence: rules by module class, what is known, and shapes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from torch import Tensor, nn

from captum_lie.layouts.evidence import Evidence, is_known
from captum_lie.layouts.layout import TRIVIAL, UNKNOWN, Layout
from captum_lie.layouts.shapes import by_shape

#: A layout, or a function ``(module, tensor, evidence) -> layout`` that gives None where it cannot
#: say.
Rule = Layout | Callable[[nn.Module, Tensor, Evidence], Layout | None]
_INPUT_RULES: dict[type[nn.Module], Rule] = {}
_OUTPUT_RULES: dict[type[nn.Module], Rule] = {}
_INSIDE_RULES: dict[type[nn.Module], Rule] = {}


def register(
    *classes: type[nn.Module],
    input: Rule | None = None,
    output: Rule | None = None,
    inside: Rule | None = None,
) -> None:
    """Say which layout the tensors of a module class have.

    Args:
        classes: also hold for their subclasses, unless these have rules of their own.
        input, output: a layout, or a function ``(module, tensor, evidence) -> layout`` that returns
            None where it cannot say.
        inside: the same for both sides of every module called within; goes before their own rules.

    Example:
        >>> import torch
        >>> class Mean(nn.Module):
        ...     "Averages an image over its columns, and keeps that axis first."
        >>> rows, evidence = torch.rand(2, 32, 3), Evidence(batch=2, image=(32, 32))
        >>> print(infer(Mean(), rows, evidence, "output"))
        unknown
        >>> register(Mean, output=TRIVIAL)
        >>> print(infer(Mean(), rows, evidence, "output"))
        trivial
    """
    for cls in classes:
        if input is not None:
            _INPUT_RULES[cls] = input
        if output is not None:
            _OUTPUT_RULES[cls] = output
        if inside is not None:
            _INSIDE_RULES[cls] = inside


def infer(
    module: nn.Module, x: Tensor, evidence: Evidence, side: Literal["input", "output"]
) -> Layout:
    """Layout of a tensor at a module's boundary, from the evidence.

    In this order: vectors, N×C×1×1 maps and single tokens are trivial; then the rules of the
    classes around it and of its own; then what is known of this tensor; then the shape, if only one
    layout fits it, or only one that the module's inputs have, or that puts the channels where the
    module normalises them. Sequences that come from an unknown tensor must lie on a grid that was
    seen before. A tensor whose first axis is not the batch is unknown, unless a rule says how
    examples are regrouped within it.

    Example:
        >>> import torch
        >>> evidence = Evidence(batch=2, image=(32, 48))
        >>> print(infer(nn.Identity(), torch.rand(2, 8, 16, 24), evidence, "output"))
        nchw
        >>> tokens = torch.rand(2, 1 + 8 * 12, 64)  # or 97 channels, then 4 + 6 * 10 tokens
        >>> print(infer(nn.Identity(), tokens, evidence, "output"))
        unknown
        >>> print(infer(nn.LayerNorm(64), tokens, evidence, "output"))
        tokens[1+8x12]
    """
    if x.ndim == 0:
        return UNKNOWN
    evidence = replace(evidence, side=side)
    of_examples = x.shape[0] == evidence.batch
    if of_examples and not is_known(x, evidence) and _is_single(x):
        return TRIVIAL
    own = _INPUT_RULES if side == "input" else _OUTPUT_RULES
    owners = [(ancestor, _INSIDE_RULES) for ancestor in evidence.ancestors] + [(module, own)]
    for owner, rules in owners:
        rule = next((rules[cls] for cls in type(owner).__mro__ if cls in rules), None)
        layout = rule if rule is None or isinstance(rule, Layout) else rule(module, x, evidence)
        if layout is not None:
            return layout if evidence.allows(layout, x) else UNKNOWN
    if evidence.known is not None and evidence.allows(evidence.known, x):
        return evidence.known
    if not of_examples:
        return UNKNOWN
    candidates = list(by_shape(x, evidence))
    if len(candidates) > 1:  # modules rarely change the grid
        grids = [source.grid for source in evidence.sources if source.grid]
        candidates = [c for c in candidates if c.grid in grids] or candidates
    if len(candidates) > 1:
        candidates = [c for c in candidates if evidence.familiar(c)] or candidates
    if len(candidates) > 1:  # nor turn their tensors around
        kinds = [source.kind for source in evidence.sources]
        candidates = [c for c in candidates if c.kind in kinds] or candidates
    if x.ndim == 3 and _normalises_last_axis(module, x):
        candidates = [c for c in candidates if c.kind == "tokens"]
    elif x.ndim == 3 and UNKNOWN in (evidence.known, *evidence.sources):
        # Numbers of channels are often squares: what comes from an unknown tensor needs more.
        candidates = [c for c in candidates if evidence.familiar(c)]
    return candidates[0] if len(candidates) == 1 else UNKNOWN


def _is_single(x: Tensor) -> bool:
    """Whether this is one vector for each example: pooled, or a class token."""
    return x.ndim == 2 or (x.ndim == 4 and x.shape[2:] == (1, 1)) or (x.ndim, x.shape[1]) == (3, 1)


def _normalises_last_axis(module: nn.Module, x: Tensor) -> bool:
    shapes = (getattr(inner, "normalized_shape", None) for inner in module.modules())
    return any(shape and shape[-1] == x.shape[-1] for shape in shapes)
