"""Leaner graphs of traced derivatives: no arithmetic on known zeros, nothing computed twice.

Forward mode gives weights a tangent of zeros and convolves with it, and it evaluates the function
beside the derivative. Both would double the work in a runtime that cannot tell.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

_aten = torch.ops.aten
_ZERO = {
    _aten.zeros.default, _aten.zeros_like.default, _aten.new_zeros.default,
    _aten._efficientzerotensor.default,
}  # fmt: skip
#: Linear in the first argument.
_LINEAR = {
    _aten.alias.default, _aten.clone.default, _aten.detach.default, _aten._to_copy.default,
    _aten.view.default, _aten._unsafe_view.default, _aten.reshape.default, _aten.expand.default,
    _aten.t.default, _aten.transpose.int, _aten.permute.default, _aten.unsqueeze.default,
    _aten.squeeze.dim, _aten.slice.Tensor, _aten.select.int, _aten.neg.default,
    _aten.mul.Tensor, _aten.mul.Scalar, _aten.div.Tensor, _aten.div.Scalar,
    _aten.sum.dim_IntList, _aten.mean.dim, _aten.mm.default, _aten.bmm.default,
    _aten.unbind.int, operator.getitem,
}  # fmt: skip
#: Linear in the second argument as well.
_BILINEAR = {_aten.mul.Tensor, _aten.mm.default, _aten.bmm.default}
_IDENTITY = {_aten.alias.default, _aten.clone.default, _aten.detach.default}
#: The identity where neither shape nor type changes.
_RESHAPING = {
    _aten.view.default, _aten._unsafe_view.default, _aten.reshape.default, _aten.expand.default,
    _aten._to_copy.default,
}  # fmt: skip


def simplify(module: GraphModule) -> None:
    """Rewrite a graph of functional ATen operators in place; its values stay the same.

    Nodes must carry the ``tensor_meta`` that tracing real tensors leaves.
    """
    zeros: set[Node] = set()
    for node in module.graph.nodes:
        if node.op != "call_function":
            continue
        if node.target in (_aten.view.default, _aten._unsafe_view.default):
            node.target = _aten.reshape.default  # whatever the strides will be
        if _is_zero(node, zeros):
            zeros.add(node)
        equal = _equal(node, zeros)
        if equal is not None:
            node.replace_all_uses_with(equal)
    _merge_equal(module)
    module.graph.eliminate_dead_code()
    module.recompile()


def _is_zero(node: Node, zeros: set[Node]) -> bool:
    """Whether all that the node computes is zero."""
    if node.target in _ZERO:
        return True
    if not node.args:
        return False
    first, second, third = (*node.args, None, None)[:3]
    if node.target is _aten.convolution.default:
        return third is None and (first in zeros or second in zeros)
    if node.target is _aten.copy.default:
        return second in zeros
    return (node.target in _LINEAR and first in zeros) or (
        node.target in _BILINEAR and second in zeros
    )


def _equal(node: Node, zeros: set[Node]) -> Node | None:
    """An earlier node that has the same value."""
    if node.target in _IDENTITY:
        return _node(node.args[0])
    if node.target in _RESHAPING:
        return _alike(node, node.args[0])
    if node.target is _aten.copy.default:
        return _alike(node, node.args[1])
    if node.target in (_aten.add.Tensor, _aten.sub.Tensor) and len(node.args) == 2:
        first, second = node.args
        if second in zeros:
            return _alike(node, first)
        if first in zeros and node.target is _aten.add.Tensor and not node.kwargs:
            return _alike(node, second)
    return None


def _alike(node: Node, other: Any) -> Node | None:
    """``other``, if it is a tensor of the node's shape and type."""
    one, two = node.meta.get("tensor_meta"), getattr(other, "meta", {}).get("tensor_meta")
    if one is None or two is None:
        return None
    return other if (one.shape, one.dtype) == (two.shape, two.dtype) else None


def _node(value: Any) -> Node | None:
    return value if isinstance(value, Node) else None


def _merge_equal(module: GraphModule) -> None:
    """One node for every operator and its arguments."""
    known: dict[Any, Node] = {}
    for node in module.graph.nodes:
        if node.op == "get_attr":
            key: Any = id(_constant(module, node))
        elif node.op == "call_function":
            key = (node.target, _key(node.args), _key(node.kwargs))
        else:
            continue
        first = known.setdefault(key, node)
        if first is not node:
            node.replace_all_uses_with(first)


def _constant(module: GraphModule, node: Node) -> Tensor:
    value: Tensor = getattr(module, str(node.target))
    return value


def _key(value: Any) -> Any:
    """Arguments as something to look up; 1, 1.0 and True are different."""
    if isinstance(value, tuple | list):
        return tuple(map(_key, value))
    if isinstance(value, dict):
        return tuple((name, _key(member)) for name, member in value.items())
    return type(value), value
