"""What an audit looks at: an ONNX file, a PyTorch model, or the report of an earlier audit."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from captum_lie import LocalEquivarianceError
from captum_lie.extending.tensors import to_model
from captum_lie.metrics import MetricTable
from captum_lie_onnx import lee
from captum_lie_onnx.audit_record import read_behaviour
from captum_lie_onnx.behaviour import Behaviour, Plan, observe
from captum_lie_onnx.derivative import LieDerivativeModel
from captum_lie_onnx.inspection import identify
from captum_lie_onnx.limits import Limits
from captum_lie_onnx.metadata import Preprocessing
from captum_lie_onnx.runtime import OnnxModel
from captum_lie_onnx.scores import ClassScores

#: Relative rounding of activations, for the steps of finite differences.
_ROUNDING = {"int8": 2.0**-8, "float16": 2.0**-10}


@dataclass(frozen=True)
class Opening:
    """How the files of an audit are opened.

    Attributes:
        stack: closes their child processes.
        limits: on memory and time.
        threads: of onnxruntime; None: as many as PyTorch takes.
        assumed: preprocessing, where a file does not say.
    """

    stack: ExitStack
    limits: Limits
    threads: int | None = None
    assumed: Preprocessing | None = None

    def model(self, path: Path) -> OnnxModel:
        """A model that closes with the stack."""
        model = OnnxModel(path, threads=self.threads, limits=self.limits, assumed=self.assumed)
        self.stack.callback(model.close)
        return model

    def derivative(self, path: Path) -> LieDerivativeModel:
        """The graph of a Lie derivative that closes with the stack."""
        graph = LieDerivativeModel(path, threads=self.threads, limits=self.limits)
        self.stack.callback(graph.close)
        return graph


class Subject(Protocol):
    """Something whose behaviour can be observed on images."""

    @property
    def name(self) -> str: ...
    @property
    def identity(self) -> dict[str, Any] | None:
        """What the file is; None for what is no file."""

    @property
    def input_size(self) -> tuple[int, int] | None:
        """``(height, width)``, if only one will do."""

    def observe(self, images: Tensor, plan: Plan) -> Behaviour: ...


def subject_of(
    source: nn.Module | Path | str, opening: Opening, name: str | None = None
) -> Subject:
    """A reference by what it is given as: a module, an ONNX file or an ``audit.json``.

    Args:
        name: of a module; its class by default.
    """
    if isinstance(source, nn.Module):
        return ModuleSubject(source, name or type(source).__name__)
    path = Path(source)
    if path.suffix == ".json":
        return SavedSubject(path)
    return OnnxSubject(path, opening)


class ModuleSubject:
    """A PyTorch model that takes plain images in [0, 1]; its LEE is exact."""

    identity = None

    def __init__(self, model: nn.Module, name: str) -> None:
        self.model = ClassScores(model)
        self.name = name
        self.input_size: tuple[int, int] | None = getattr(model, "input_size", None)

    def observe(self, images: Tensor, plan: Plan) -> Behaviour:
        method = LocalEquivarianceError(self.model)
        groups = list(plan.groups)

        def run(x: Tensor) -> Tensor:
            outputs: Tensor = self.model(to_model(self.model, x))
            return outputs

        return observe(
            run,
            images,
            plan,
            name=self.name,
            backend=f"PyTorch {torch.__version__}",
            lee=lambda: lee.in_order(
                lee.exact(
                    lambda x: method.score(to_model(self.model, x), groups), images, groups, plan
                ),
                plan,
            ),
        )


class SavedSubject:
    """The model of a saved report."""

    identity = None
    input_size = None

    def __init__(self, path: Path) -> None:
        self._behaviour = read_behaviour(path)
        self.name = self._behaviour.name

    def observe(self, images: Tensor, plan: Plan) -> Behaviour:
        return self._behaviour


class OnnxSubject:
    """An ONNX file, run in child processes with limits.

    Args:
        derivative: graph of its Lie derivative; by default the file ``MODEL.lie.onnx`` beside it,
            if there is one.
    """

    def __init__(self, path: Path, opening: Opening, derivative: Path | str | None = None) -> None:
        self.path, self.name = path, path.name
        self.model = opening.model(path)
        self._scores = ClassScores(self.model)
        self.file = identify(path, self.model.description)
        self.identity = self.file.to_dict()
        self.input_size = self.model.input_size
        beside = path.with_suffix(".lie.onnx")
        graph = Path(derivative) if derivative else beside if beside.is_file() else None
        self.derivative = None if graph is None else opening.derivative(graph)

    def observe(self, images: Tensor, plan: Plan) -> Behaviour:
        return observe(
            self._scores,
            images,
            plan,
            name=self.name,
            backend="onnxruntime, CPU",
            lee=lambda: self._lee(images, plan),
        )

    def _lee(self, images: Tensor, plan: Plan) -> MetricTable:
        """Exact for the groups of the derivative graph, by finite differences for the rest."""
        graph = self.derivative
        known = {g.name: i for i, g in enumerate(graph.groups)} if graph else {}
        exact = [
            g for g in plan.groups if graph and g.name in known and g == graph.groups[known[g.name]]
        ]
        results = []
        if graph and exact:
            columns = [known[g.name] for g in exact]
            results = lee.exact(lambda x: graph.lee(x)[:, columns], images, exact, plan)
        rest = [g for g in plan.groups if g not in exact]
        precision = _ROUNDING.get(self.file.precision)
        results += lee.by_finite_differences(self._scores, images, rest, plan, precision)
        return lee.in_order(results, plan)
