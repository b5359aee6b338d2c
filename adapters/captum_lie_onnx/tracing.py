"""Functions that differentiate, as graphs of plain operators for a batch of any size.

PyTorch cannot trace forward mode with symbolic sizes. So the function is traced at two batch sizes,
which gives the same graph but for some integers (sizes of views and expansions). Each of these is
an affine function ``k n + c`` of the batch size n, found from its two values and written into the
graph in place of the number. What is no such function shows when the graph is compared with the
original at other batch sizes.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._decomp import get_decompositions
from torch.func import functionalize
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx

from captum_lie.extending.tensors import differentiable
from captum_lie_onnx.simplification import simplify

_SIZES = (2, 3)  # not 1, which broadcasts


class FixedBatchError(RuntimeError):
    """The graph of a function depends on its batch size by more than sizes of views."""


def trace(function: Callable[[Tensor], Any], example: Tensor) -> GraphModule:
    """The operators of ``function(example)``, for the example's batch size alone."""
    example = example.detach()
    with differentiable(), torch.no_grad():
        traced = make_fx(function, decomposition_table=_DECOMPOSITIONS)(example)
        for node in traced.graph.nodes:
            if node.target is torch.ops.aten._efficientzerotensor.default:
                node.target = torch.ops.aten.zeros.default
        traced.recompile()
        functional: GraphModule = make_fx(functionalize(traced, remove="mutations"))(example)
    simplify(functional)
    return functional.eval()


def trace_for_any_batch(function: Callable[[Tensor], Any], example: Tensor) -> GraphModule:
    """The operators of a function, with the batch size read from its input.

    Raises:
        FixedBatchError: the graphs at two batch sizes differ by more than integers.
    """
    image = example[:1]
    first, second = (trace(function, image.repeat(n, 1, 1, 1)) for n in _SIZES)
    nodes, others = list(first.graph.nodes), list(second.graph.nodes)
    if len(nodes) != len(others):
        raise FixedBatchError("The number of operators depends on the batch size.")
    twin = dict(zip(others, nodes, strict=True))
    sizes = _Sizes(first.graph)
    for node, other in zip(nodes, others, strict=True):
        _check_same(first, node, second, other)
        with first.graph.inserting_before(node):
            node.args = _merged(node.args, other.args, twin, sizes)
            node.kwargs = _merged(node.kwargs, other.kwargs, twin, sizes)
    first.graph.lint()
    first.recompile()
    return first


class _Sizes:
    """Affine functions of the batch size as nodes of a graph, each made once."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._made: dict[tuple[int, int], Node] = {}
        (image,) = (n for n in graph.nodes if n.op == "placeholder")
        with graph.inserting_after(image):
            self._batch = graph.call_function(torch.ops.aten.sym_size.int, (image, 0))
        self._end = self._batch

    def __call__(self, first: int, second: int) -> Node:
        """The function with these values at the two sizes."""
        slope = (second - first) // (_SIZES[1] - _SIZES[0])
        offset = first - slope * _SIZES[0]
        if (slope, offset) not in self._made:
            size = self._batch
            if slope != 1:
                size = self._append(operator.mul, size, slope)
            if offset:
                size = self._append(operator.add, size, offset)
            self._made[slope, offset] = size
        return self._made[slope, offset]

    def _append(self, function: Callable[..., Any], *args: Any) -> Node:
        """All sizes come right after the input, before whoever uses them."""
        with self._graph.inserting_after(self._end):
            self._end = self._graph.call_function(function, args)
        return self._end


def _check_same(first: GraphModule, node: Node, second: GraphModule, other: Node) -> None:
    if node.op != other.op or (node.op != "get_attr" and node.target != other.target):
        raise FixedBatchError(
            f"The batch size decides between operators: {node.target}, {other.target}."
        )
    if node.op == "get_attr":
        one, twin = getattr(first, str(node.target)), getattr(second, str(other.target))
        if one is not twin and not (
            one.shape == twin.shape and one.dtype == twin.dtype and torch.equal(one, twin)
        ):
            raise FixedBatchError(f"The constant {node.target} depends on the batch size.")


def _merged(first: Any, second: Any, twin: dict[Node, Node], sizes: _Sizes) -> Any:
    """Arguments of the first graph with sizes in place of integers that differ in the second."""
    if isinstance(first, Node):
        if twin.get(second) is not first:
            raise FixedBatchError("The batch size decides how operators are connected.")
        return first
    if isinstance(first, tuple | list) and isinstance(second, tuple | list):
        if len(first) != len(second):
            raise FixedBatchError("The batch size decides how many arguments an operator has.")
        pairs = zip(first, second, strict=True)
        return type(first)([_merged(a, b, twin, sizes) for a, b in pairs])
    if isinstance(first, dict):
        return {key: _merged(first[key], second[key], twin, sizes) for key in first}
    if first == second or first is second:
        return first
    if type(first) is int and type(second) is int:
        return sizes(first, second)
    raise FixedBatchError(f"An argument depends on the batch size: {first!r}, {second!r}.")


def _new_zeros(tangent: Tensor, primal: Tensor, *, self_num_batch_dims: int = 0) -> Tensor:
    """Zeros shaped like the primal, after the tangent's batch dimensions."""
    return primal.new_zeros(*tangent.shape[:self_num_batch_dims], *primal.shape)


_DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    # Forward mode of some operators is made of their backward operators, which ONNX lacks.
    **get_decompositions([torch.ops.aten.silu_backward]),
    torch.ops.aten._new_zeros_with_same_feature_meta.default: _new_zeros,
}
