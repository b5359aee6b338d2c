"""``audit``: did export, graph optimisation or quantisation change how a model reacts to motion?"""

from __future__ import annotations

import warnings
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnxruntime
import torch
from torch import Tensor, nn

from captum_lie import __version__
from captum_lie.errors import InvalidValueError
from captum_lie.models import check_runs
from captum_lie_onnx.assumptions import constant_answers, unstated
from captum_lie_onnx.audit_report import AuditReport
from captum_lie_onnx.audit_settings import AuditOptions, AuditSettings
from captum_lie_onnx.comparison import compare, parity_checks
from captum_lie_onnx.cpu import this_cpu
from captum_lie_onnx.images import Wanted, read_images
from captum_lie_onnx.limits import Limits
from captum_lie_onnx.parity import parity
from captum_lie_onnx.runtime import OnnxModel
from captum_lie_onnx.self_checks import self_checks
from captum_lie_onnx.subjects import OnnxSubject, Opening, Subject, subject_of
from captum_lie_onnx.thresholds import resolve_thresholds

if TYPE_CHECKING:
    from typing_extensions import Unpack


def audit(
    path: Path | str,
    images: Path | str | Tensor,
    reference: nn.Module | Path | str | None = None,
    **options: Unpack[AuditOptions],
) -> AuditReport:
    """Compare how an ONNX file and a reference react to shifts, rotations and the rest.

    The file runs in onnxruntime on the CPU, in a child process with limits on memory and time.

    Args:
        path: the ONNX file.
        images: a folder of images, ``"builtin"`` for the embedded ones, or ``[N, C, H, W]`` in
            [0, 1]. Those of a folder are read as grey for a file with one channel, and brought to
            one size (:func:`captum_lie_onnx.images.read_images`).
        reference: what it should behave like: a PyTorch model in evaluation mode that takes plain
            images in [0, 1], another ONNX file, or the ``audit.json`` of an earlier audit on the
            same images. None: everything but parity, from the file alone.
        derivative: the model's Lie derivative (:func:`captum_lie_onnx.export_lie_derivative`), from
            which LEE is exact; by default ``MODEL.lie.onnx`` beside ``MODEL.onnx``, if it is there.
            Elsewhere LEE comes from finite differences, with error bars.
        preprocessing: what the graph's input is, for ONNX files that do not say so themselves; by
            default plain images, and the report says that this was assumed.
        groups: for LEE and the metrics that take groups.
        metrics: sampling-based metrics, see :data:`captum_lie.metrics.METRIC_NAMES`.
        n_samples: transformations per image of the sampled ones.
        seed: of the sampled transformations; both models see the same ones.
        thresholds: see :func:`captum_lie_onnx.resolve_thresholds`; by default those for exports.
        size: ``(height, width)`` of the images; by default what the file or the reference says.
        limit: use at most so many images of a folder, evenly spread; None for all.
        max_unreadable: largest share of images that may be unreadable.
        batch_size: images at a time; dynamically quantised files run one by one, since their
            outputs depend on who shares the batch.
        threads: of onnxruntime; by default as many as PyTorch takes.
        limits: on the files; defaults in :class:`captum_lie_onnx.Limits`.
        reference_name: of a PyTorch reference, for the report.
        show_progress: show progress bars.

    Returns:
        Verdicts, numbers and pictures; ``.passed``, ``.save(folder)``. What had to be assumed, and
        signs that it was wrong, are its ``notes``; each is also a warning.

    Raises:
        OnnxModelError: the file is broken, hostile, or no image classifier.
        OSError, TypeError, ValueError: images, reference or options are not usable.

    Example:
        >>> import tempfile
        >>> from captum_lie.examples import load_images, load_model
        >>> from captum_lie_onnx import export
        >>> model, (photos, _) = load_model("cnn"), load_images(4)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = export(model, photos, Path(folder) / "cnn.onnx")
        ...     report = audit(file, photos, model, groups=["rotation"], metrics=["eq_t"])
        >>> report.passed
        True
    """
    return run_audit(path, images, reference, AuditSettings(**options))


def run_audit(
    path: Path | str,
    images: Path | str | Tensor,
    reference: nn.Module | Path | str | None,
    settings: AuditSettings,
) -> AuditReport:
    """:func:`audit` by settings."""
    plan, cpu, given = settings.plan(), this_cpu(), settings.thresholds
    thresholds = dict(resolve_thresholds() if given is None else given)
    notes: list[str] = []
    with ExitStack() as stack:
        limits = settings.limits or Limits()
        opening = Opening(stack, limits, settings.threads, settings.preprocessing)
        file = OnnxSubject(Path(path), opening, settings.derivative)
        _note(notes, _assumption(file, settings))
        other = None
        if reference is not None:
            other = subject_of(reference, opening, settings.reference_name)
        wanted = wanted_by(file.model, settings, other)
        read = read_images(images, wanted, settings.limit, settings.max_unreadable)
        for text in read.notes:
            _note(notes, text)
        if isinstance(reference, nn.Module) and other is not None:
            check_runs(other.name, reference, read.images)
        candidate = file.observe(read.images, plan)
        _note(notes, constant_answers(candidate.name, candidate.outputs))
        checks = self_checks(
            file, read.images, candidate.outputs, settings.batch_size, thresholds, cpu
        )
        expected = other.observe(read.images, plan) if other else None
    comparison, differences = compare(candidate, expected, thresholds)
    scores = None
    if expected is not None:
        scores = parity(candidate.outputs, expected.outputs)
        checks = parity_checks(scores, thresholds) + checks
    return AuditReport(
        checks=checks + differences,
        comparison=comparison,
        parity=scores,
        candidate=candidate,
        reference=expected,
        identity=file.identity,
        reference_identity=other.identity if other else None,
        settings=_recorded(settings, file, read.images)
        | {"thresholds": thresholds, **_versions(), "cpu": cpu.to_dict()},
        notes=notes,
        skipped=read.skipped,
        images=read.images,
    )


def _assumption(file: OnnxSubject, settings: AuditSettings) -> str | None:
    """What had to be assumed of how the file's images are prepared, in words.

    Raises:
        ValueError: the file says it itself, and so did the caller.
    """
    if not file.model.stated:
        if settings.preprocessing is not None:
            return None
        return unstated(file.name, file.model.preprocessing)
    if settings.preprocessing is not None:
        raise InvalidValueError(
            f"{file.path} says itself how its images are prepared: leave out preprocessing "
            "(--mean, --std, --bgr)."
        )
    return None


def wanted_by(
    model: OnnxModel, settings: AuditSettings, reference: Subject | None = None
) -> Wanted:
    """What the images must be like."""
    limits = settings.limits or Limits()
    return Wanted(
        settings.size or model.input_size or (reference.input_size if reference else None),
        model.channels,
        max(settings.batch_size, model.fixed_batch or 1),
        limits.memory,
    )


def _recorded(settings: AuditSettings, file: OnnxSubject, images: Tensor) -> dict[str, Any]:
    """What was measured and how, for the report."""
    source = "caller" if settings.preprocessing else "assumed"
    return {
        "images": len(images),
        "channels": images.shape[1],
        "size": list(images.shape[-2:]),
        "preprocessing": {
            **asdict(file.model.preprocessing),
            "from": "file" if file.model.stated else source,
        },
        "groups": [g.name for g in settings.plan().groups],
        "metrics": list(settings.metrics),
        "n_samples": settings.n_samples,
        "seed": settings.seed,
        "batch_size": settings.batch_size,
    }


def _versions() -> dict[str, str]:
    return {
        "captum-lie": __version__,
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
    }


def _note(notes: list[str], text: str | None) -> None:
    """Keep a note for the report, and give it as a warning at once: the work may take long."""
    if text is not None:
        notes.append(text)
        warnings.warn(text, stacklevel=4)
