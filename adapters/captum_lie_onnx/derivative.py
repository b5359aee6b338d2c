"""``LieDerivativeModel``: the graph of a Lie derivative, run by onnxruntime on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from captum_lie.extending.checks import check_images
from captum_lie_onnx.conversion import SCORES
from captum_lie_onnx.engine import FileHolder, open_file
from captum_lie_onnx.errors import OnnxModelError
from captum_lie_onnx.group_entries import group_of
from captum_lie_onnx.limits import Limits
from captum_lie_onnx.metadata import read_entry
from captum_lie_onnx.running import Running

#: What the metadata of such a graph say it is, and the name of its second output.
KIND, DERIVATIVE = "lie_derivative", "derivative"


class LieDerivativeModel(FileHolder):
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
        >>> from captum_lie_onnx import export_lie_derivative
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
        self._file = open_file(self.path, Running(threads, limits=limits))
        try:
            self._read(self._file.description["metadata"])
        except BaseException:
            self.close()
            raise

    def _read(self, properties: Mapping[str, str]) -> None:
        """What the file's metadata say of its outputs."""
        kind, outputs = read_entry(properties, "kind"), self._file.outputs
        if kind != KIND or outputs != [SCORES, DERIVATIVE]:
            raise OnnxModelError(
                f"{self.path} is no graph of a Lie derivative: make one with export_lie_derivative."
            )
        try:
            self.groups = [group_of(entry) for entry in read_entry(properties, "groups")]
            self.single = bool(read_entry(properties, "single"))
            self._softmax = read_entry(properties, "output_fn") == "softmax"
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise OnnxModelError(
                f"The metadata of {self.path} are malformed ({error}). Export it again."
            ) from error

    @property
    def fixed_batch(self) -> int | None:
        """The batch size that the graph takes; None if it takes any."""
        return self._file.fixed_batch

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
        value = images.detach().cpu().numpy().astype(self._file.input["dtype"], copy=False)
        scores, derivative = map(torch.from_numpy, self._file.run(value, [SCORES, DERIVATIVE]))
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
