"""The exact Lie derivative of a classifier as an ONNX graph: any runtime then measures its LEE."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.onnx import ONNXProgram

from captum_lie import __version__
from captum_lie.core.autodiff import pushforward
from captum_lie.core.derivative import ModelFunction, lie_derivatives, tangent_basis
from captum_lie.core.loaders import to_model
from captum_lie.core.validation import check_images, one_of
from captum_lie.errors import InvalidValueError
from captum_lie.groups import (
    Affine,
    GroupLike,
    OneParameterGroup,
    SpatialGroup,
    get_group,
    get_groups,
    is_single,
    pixel_matrix,
)
from captum_lie.preprocessing import Normalized
from captum_lie.resampling import Border, Interpolation, slope
from captum_lie_onnx.conversion import check_destination, convert, quiet, write
from captum_lie_onnx.errors import OnnxModelError
from captum_lie_onnx.exporting import (
    SCORES,
    batches,
    check_exportable,
    compare,
    describe_input,
    photographs_like,
    score_count,
    unwrapped,
)
from captum_lie_onnx.limits import Limits
from captum_lie_onnx.metadata import Metadata, Preprocessing, entries, read_entry
from captum_lie_onnx.runtime import open_engine
from captum_lie_onnx.tracing import FixedBatchError, trace, trace_for_any_batch

DERIVATIVE = "derivative"
OutputFnName = Literal["softmax"]

#: Share of the images that may lie at a kink, and by how many tolerances they may differ.
_SHARE_AT_KINKS, _JUMP = 0.25, 100


def export_lie_derivative(
    model: nn.Module,
    group: GroupLike | Sequence[GroupLike],
    example: Tensor,
    path: Path | str,
    *,
    output_fn: OutputFnName | None = "softmax",
    opset: int | None = None,
    tolerance: float = 1e-4,
    preprocessing: Preprocessing | None = None,
) -> Path:
    r"""Export :math:`L f(x) = J_f(x)\,\xi(x)` as an ONNX graph of plain operators.

    The graph maps plain images to the outputs ``scores`` ``[N, K]``, which is
    ``output_fn(model(x))``, and ``derivative``: ``[N, K]`` for one group, ``[N, G, K]`` for a
    sequence of G. It is compared with :func:`captum_lie.lie_derivative` before it is written.
    Where the batch size cannot vary, the graph takes single images, and
    :class:`LieDerivativeModel` runs it once for each.

    Args:
        model: in evaluation mode; plain images ``[N, C, H, W]`` in [0, 1] to scores ``[N, K]``.
        group: a group or its name, or a sequence of them; ``"all"`` for every name.
        example: an input of the model; sets the graph's image size.
        path: the file to write.
        output_fn: applied to the scores: ``"softmax"``, so that LEE can be taken (Gruver et al.,
            arXiv 2210.02984, Eq. 4), or None.
        opset: ONNX operator set; 20 by default.
        tolerance: largest difference from PyTorch, relative to the largest absolute derivative.
        preprocessing: mean and std of a model that takes normalised images; they become part of
            the graph, since groups act on plain images.

    Returns:
        ``path``.

    Raises:
        TypeError, ValueError: model, group or example are not usable, an operator has no derivative
            or no ONNX counterpart, or the graph's derivative differs from the model's.
        OSError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> from captum_lie.examples import load_images, load_model
        >>> x = load_images(3)[0]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = export_lie_derivative(load_model("cnn"), "rotation", x, f"{folder}/lie.onnx")
        ...     scores, derivative = LieDerivativeModel(path)(x)
        >>> derivative.shape
        torch.Size([3, 8])
    """
    if output_fn is not None:
        one_of("output_fn", output_fn, ("softmax",))
    groups, single = get_groups(group), is_single(group)
    described = [_describe(g) for g in groups]
    check_destination(path)
    check_exportable(model, example)
    model = _on_plain_images(model, preprocessing)
    example = to_model(model, example.detach())
    classes = score_count(model, example)
    about = describe_input(model, example, None)
    metadata = Metadata(about, classes, type(unwrapped(model)).__name__, __version__)
    properties = entries(
        metadata, groups=described, single=single, output_fn=output_fn, kind="lie_derivative"
    )
    jet = _jet(model, groups, single, output_fn, example)
    photographs = photographs_like(example, about)

    def attempt(dynamic: bool) -> Path:
        def check(file: Path) -> None:
            with LieDerivativeModel(file, threads=torch.get_num_threads()) as graph:
                fixed = None if dynamic else len(example)
                parts = batches(photographs.to(example.dtype), fixed)
                _check_parity([_compared(graph, model, images) for images in parts], tolerance)

        program = _convert(jet, example, opset, dynamic)
        return write(program, path, properties, check)

    try:
        return attempt(dynamic=True)
    except (FixedBatchError, ValueError):
        # Whatever stops the batch from varying; if it is something else, it shows here again.
        return attempt(dynamic=False)


class LieDerivativeModel:
    """A graph written by :func:`export_lie_derivative`, run by onnxruntime on the CPU.

    Args:
        path: the ONNX file.
        threads: of onnxruntime; by default as many as PyTorch takes.
        limits: open the file in a child process with these limits; None: in this process, for files
            that are trusted.

    Attributes:
        groups: of the derivatives, in their order.
        single: made for one group; derivatives are then ``[N, K]``.

    Raises:
        OnnxModelError: the file cannot be used, or is no graph of a Lie derivative.

    Example:
        >>> import tempfile
        >>> from captum_lie.examples import load_images, load_model
        >>> model, (x, _) = load_model("cnn"), load_images(3)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = export_lie_derivative(model, ["rotation", "scale"], x, f"{folder}/lie.onnx")
        ...     with LieDerivativeModel(path, threads=1) as graph:
        ...         names, shape = [group.name for group in graph.groups], graph(x)[1].shape
        >>> names, shape
        (['rotation', 'scale'], torch.Size([3, 2, 8]))
    """

    def __init__(
        self, path: Path | str, *, threads: int | None = None, limits: Limits | None = None
    ) -> None:
        self.path = Path(path)
        self._engine, outputs, description = open_engine(self.path, threads, "all", limits)
        properties = description["metadata"]
        if read_entry(properties, "kind") != "lie_derivative" or outputs != [SCORES, DERIVATIVE]:
            self.close()
            raise OnnxModelError(
                f"{path} is no graph of a Lie derivative: make one with export_lie_derivative."
            )
        try:
            self.groups = [_group_from(entry) for entry in read_entry(properties, "groups")]
            self.single = bool(read_entry(properties, "single"))
            self._softmax = read_entry(properties, "output_fn") == "softmax"
            (self._input,) = description["inputs"]
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            self.close()
            raise OnnxModelError(
                f"The metadata of {path} are malformed ({error}). Export it again."
            ) from error

    @property
    def fixed_batch(self) -> int | None:
        """The batch size that the graph takes; None if it takes any."""
        size = self._input["shape"][0]
        return size if isinstance(size, int) else None

    def output_fn(self, scores: Tensor) -> Tensor:
        """What the graph applies to the model's scores ``[N, K]``: softmax, or nothing."""
        return scores.softmax(-1) if self._softmax else scores

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs ``[N, K]`` and their Lie derivatives ``[N, K]`` or ``[N, G, K]``.

        Args:
            images: plain images ``[N, C, H, W]`` in [0, 1].

        Raises:
            TypeError, ValueError: images that the graph does not take.
        """
        check_images(images)
        value = images.detach().cpu().numpy().astype(self._input["dtype"], copy=False)
        size = self.fixed_batch or max(len(value), 1)
        parts = [self._run(value[i : i + size], size) for i in range(0, len(value), size)]
        scores, derivative = (
            torch.from_numpy(np.concatenate(column)) for column in zip(*parts, strict=True)
        )
        axes = () if self.single else (len(self.groups),)
        expected = (len(value), *axes, *scores.shape[1:])
        if scores.ndim != 2 or derivative.shape != expected:
            raise OnnxModelError(
                f"{self.path} gives outputs {list(scores.shape)} with derivatives "
                f"{list(derivative.shape)} for {len(value)} images and {len(self.groups)} groups. "
                "Export it again."
            )
        return scores, derivative

    def lee(self, images: Tensor) -> Tensor:
        """Local equivariance error ``‖L f(x)‖² / K`` of each image and group, ``[N, G]``."""
        _, derivative = self(images)
        if self.single:
            derivative = derivative.unsqueeze(1)
        return derivative.double().square().mean(-1)

    def close(self) -> None:
        """End the child process, if there is one."""
        close = getattr(self._engine, "close", None)
        if close is not None:
            close()

    def __enter__(self) -> LieDerivativeModel:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self, value: Any, size: int) -> list[Any]:
        """One call; short batches are filled up by repeating their last image."""
        n = len(value)
        padded = np.concatenate([value, np.repeat(value[-1:], size - n, axis=0)])
        try:
            found = self._engine.run(self._input["name"], padded, [SCORES, DERIVATIVE])
        except OnnxModelError:
            raise
        except Exception as error:  # onnxruntime's own errors have no common type
            reason = (str(error) or type(error).__name__).strip().splitlines()[0]
            raise OnnxModelError(f"{self.path} failed to run: {reason}") from error
        return [array[:n] for array in found]


def _jet(
    model: nn.Module,
    groups: Sequence[OneParameterGroup],
    single: bool,
    output_fn: OutputFnName | None,
    example: Tensor,
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """The function to trace: images to outputs and derivatives."""
    basis, mixing = tangent_basis(groups)
    generators = [_generator(g, example) for g in basis]
    mixing = None if mixing is None else mixing.to(example)
    function = _outputs(model, output_fn)

    def jet(x: Tensor) -> tuple[Tensor, Tensor]:
        tangents = torch.stack([generator(x) for generator in generators])
        derivative = pushforward(function, (x,), (tangents,))
        if mixing is not None:
            derivative = torch.tensordot(mixing, derivative, dims=1)
        return function(x), derivative[0] if single else derivative.transpose(0, 1)

    return jet


def _outputs(model: nn.Module, output_fn: OutputFnName | None) -> Callable[[Tensor], Tensor]:
    def function(x: Tensor) -> Tensor:
        scores: Tensor = model(x)
        return scores if output_fn is None else scores.softmax(-1)

    return function


def _generator(group: OneParameterGroup, example: Tensor) -> Callable[[Tensor], Tensor]:
    """``group.generator`` for images of one size, its branches on numbers decided beforehand.

    Band-limited slopes become matrices: ONNX runtimes do without complex numbers.
    """
    if not isinstance(group, SpatialGroup):
        return group.generator
    height, width = example.shape[-2:]
    column = torch.arange(width, dtype=torch.float64) - (width - 1) / 2
    row = torch.arange(height, dtype=torch.float64)[:, None] - (height - 1) / 2
    interpolation, border = group.rule
    terms: list[tuple[Tensor, Callable[[Tensor], Tensor]]] = []
    for dim, (along_x, along_y, offset) in zip(
        (-1, -2), pixel_matrix(group.direction, height, width)[:2].tolist(), strict=True
    ):
        if along_x or along_y or offset:
            velocity = (along_x * column + along_y * row + offset).to(example)
            terms.append((velocity, _slope(dim, interpolation, border, example)))

    def generator(x: Tensor) -> Tensor:
        tangent = torch.zeros_like(x)
        for velocity, slope_of in terms:
            tangent = tangent + velocity * slope_of(x)
        return tangent

    return generator


def _slope(
    dim: int, interpolation: Interpolation, border: Border, example: Tensor
) -> Callable[[Tensor], Tensor]:
    if interpolation != "fourier":
        return lambda x: slope(x, dim, interpolation, border)
    identity = torch.eye(example.shape[dim], dtype=torch.float64)
    along_rows = slope(identity, -1, interpolation, border).to(example)
    if dim == -1:
        return lambda x: x @ along_rows
    return lambda x: along_rows.T @ x


def _convert(
    jet: Callable[[Tensor], tuple[Tensor, Tensor]],
    example: Tensor,
    opset: int | None,
    dynamic: bool,
) -> ONNXProgram:
    example = example[:1].repeat(2 if dynamic else 1, 1, 1, 1)
    with torch.random.fork_rng(devices=[]):
        with quiet():
            graph = trace_for_any_batch(jet, example) if dynamic else trace(jet, example)
        return convert(graph, example, [SCORES, DERIVATIVE], opset=opset, dynamic_batch=dynamic)


def _compared(
    graph: LieDerivativeModel, model: nn.Module, images: Tensor
) -> dict[str, tuple[Tensor, Tensor]]:
    """What a graph gives for some images and what it should, each ``[n, ...]``."""
    x = to_model(model, images)
    outputs, derivative = graph(images)
    with torch.no_grad():
        expected = graph.output_fn(model(x)).cpu()
    function = ModelFunction(model, graph.output_fn)
    exact = torch.cat(list(lie_derivatives(function, (x,), graph.groups)), dim=1).cpu()
    exact = exact[0] if graph.single else exact.transpose(0, 1)
    pairs = {"outputs": (outputs, expected), "Lie derivative": (derivative, exact)}
    for found, wanted in pairs.values():
        compare(found, wanted)  # their shapes
    return pairs


def _check_parity(parts: Sequence[dict[str, tuple[Tensor, Tensor]]], tolerance: float) -> None:
    """Compare a graph with exact derivatives by PyTorch.

    Where a unit lies at a kink (a ReLU at zero), rounding decides on which side, here or there:
    the derivative of that image then differs by a jump. It may on one image in four, by no more
    than a hundred times the tolerance; a graph that is wrong is wrong on all.
    """
    outputs = 0.0
    for what in ("outputs", "Lie derivative"):
        found, wanted = (torch.cat([part[what][side] for part in parts]) for side in (0, 1))
        largest = float(wanted.double().abs().max())
        if what == "outputs":
            outputs = largest
        # A derivative that vanishes is known to the rounding of the outputs.
        scale = max(largest, 1e-3 * outputs)
        each = (found.double() - wanted.double()).abs().flatten(1).amax(1).nan_to_num(nan=torch.inf)
        jumps = int(_SHARE_AT_KINKS * len(each)) if what == "Lie derivative" else 0
        typical, worst = float(each.sort().values[len(each) - 1 - jumps]), float(each.max())
        most = tolerance * scale
        if typical > most or worst > (_JUMP * most if jumps else most):
            raise InvalidValueError(
                f"The exported graph's {what} differ by {worst:.3g} from the model's, more than "
                f"{tolerance:g} of the largest, {largest:.3g}. Nothing was written."
            )


def _on_plain_images(model: nn.Module, preprocessing: Preprocessing | None) -> nn.Module:
    if preprocessing is None:
        return model
    if preprocessing.layout != "NCHW" or preprocessing.channels != "RGB":
        raise InvalidValueError(
            f"Groups act on RGB images [N, C, H, W]; got {preprocessing.channels} and "
            f"{preprocessing.layout}. Convert the input inside the model."
        )
    if preprocessing.mean is None or preprocessing.std is None:
        return model
    if isinstance(model, Normalized):
        raise InvalidValueError(
            "The model normalises its input itself (Normalized): leave mean and std out of "
            "preprocessing."
        )
    return Normalized(model, preprocessing.mean, preprocessing.std, preprocessing.size).eval()


def _describe(group: OneParameterGroup) -> dict[str, Any]:
    """A group as JSON."""
    if isinstance(group, SpatialGroup):
        rule = {"interpolation": group.interpolation, "border": group.border}
        if _named(group.name, **rule) == group:
            return {"name": group.name, **rule}
        label = group.label if isinstance(group, Affine) else group.name
        return {"coefficients": list(group.direction), "label": label, **rule}
    if _named(group.name) == group:
        return {"name": group.name}
    raise InvalidValueError(
        f"A file cannot hold the group {group!r}: only the named groups and spatial ones."
    )


def _named(name: str, **rule: Any) -> OneParameterGroup | None:
    try:
        return get_group(name, **rule)
    except ValueError:
        return None


def _group_from(entry: dict[str, Any]) -> OneParameterGroup:
    """The inverse of :func:`_describe`."""
    rule = {
        "interpolation": entry.get("interpolation", "bilinear"),
        "border": entry.get("border"),
    }
    if "coefficients" in entry:
        return Affine(tuple(entry["coefficients"]), entry["label"], **rule)
    return get_group(entry["name"], **rule)
