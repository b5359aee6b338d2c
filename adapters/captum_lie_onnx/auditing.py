"""``audit``: did export, graph optimisation or quantisation change how a model reacts to motion?"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import onnxruntime
import torch
from torch import Tensor, nn

from captum_lie import __version__
from captum_lie.core.validation import one_of
from captum_lie.errors import InvalidValueError
from captum_lie.groups import GroupLike, get_groups
from captum_lie.metrics import METRIC_NAMES
from captum_lie.models import check_runs
from captum_lie_onnx.assumptions import constant_answers, unstated
from captum_lie_onnx.behaviour import Plan
from captum_lie_onnx.comparison import compare, parity_checks
from captum_lie_onnx.cpu import this_cpu
from captum_lie_onnx.images import Wanted, read_images
from captum_lie_onnx.limits import Limits
from captum_lie_onnx.metadata import Preprocessing
from captum_lie_onnx.parity import parity
from captum_lie_onnx.report import AuditReport
from captum_lie_onnx.self_checks import self_checks
from captum_lie_onnx.subjects import OnnxSubject, subject_of
from captum_lie_onnx.thresholds import resolve_thresholds

#: Groups of an audit that names none: finite differences take 12 evaluations per image and group.
GROUPS = ("translation_x", "translation_y", "rotation", "scale", "brightness")
#: Sampling-based metrics of an audit; finite differences have a part of their own.
METRICS: tuple[str, ...] = tuple(name for name in METRIC_NAMES if name != "lee_fd")


def audit(
    path: Path | str,
    images: Path | str | Tensor,
    reference: nn.Module | Path | str | None = None,
    *,
    derivative: Path | str | None = None,
    preprocessing: Preprocessing | None = None,
    groups: Sequence[GroupLike] = GROUPS,
    metrics: Sequence[str] = METRICS,
    n_samples: int = 4,
    seed: int = 0,
    thresholds: Mapping[str, float] | None = None,
    size: tuple[int, int] | None = None,
    limit: int | None = 128,
    max_unreadable: float = 0.1,
    batch_size: int = 16,
    threads: int | None = None,
    limits: Limits | None = None,
    reference_name: str | None = None,
    show_progress: bool = False,
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
    for name in metrics:
        one_of("metric", name, METRICS)
    plan = Plan(list(metrics), get_groups(list(groups)), n_samples, seed, batch_size, show_progress)
    held = dict(resolve_thresholds() if thresholds is None else thresholds)
    limits, cpu = limits or Limits(), this_cpu()
    notes: list[str] = []
    with ExitStack() as stack:
        subject = OnnxSubject(
            Path(path),
            stack=stack,
            limits=limits,
            threads=threads,
            derivative=derivative,
            assumed=preprocessing,
        )
        taken = subject.model.preprocessing
        if subject.model.stated and preprocessing is not None:
            raise InvalidValueError(
                f"{path} says itself how its images are prepared: leave out preprocessing "
                "(--mean, --std, --bgr)."
            )
        if not subject.model.stated and preprocessing is None:
            _note(notes, unstated(subject.name, taken))
        other = None
        if reference is not None:
            other = subject_of(
                reference,
                stack=stack,
                limits=limits,
                threads=threads,
                name=reference_name,
                assumed=preprocessing,
            )
        wanted = Wanted(
            size or subject.input_size or (other.input_size if other else None),
            subject.model.channels,
            max(batch_size, subject.model.fixed_batch or 1),
            limits.memory,
        )
        found = read_images(images, wanted, limit, max_unreadable)
        pictures = found.images
        for text in found.notes:
            _note(notes, text)
        if isinstance(reference, nn.Module) and other is not None:
            check_runs(other.name, reference, pictures)
        mine = subject.observe(pictures, plan)
        _note(notes, constant_answers(mine.name, mine.outputs))
        checks = self_checks(subject, pictures, mine.outputs, batch_size, held, cpu)
        theirs = other.observe(pictures, plan) if other else None
    table, differences = compare(mine, theirs, held)
    scores = None
    if theirs is not None:
        scores = parity(mine.outputs, theirs.outputs)
        checks = parity_checks(scores, held) + checks
    return AuditReport(
        checks=checks + differences,
        comparison=table,
        parity=scores,
        candidate=mine,
        reference=theirs,
        identity=subject.identity,
        reference_identity=other.identity if other else None,
        settings={
            "images": len(pictures),
            "channels": pictures.shape[1],
            "size": list(pictures.shape[-2:]),
            "preprocessing": {
                **asdict(taken),
                "from": "file"
                if subject.model.stated
                else "caller"
                if preprocessing
                else "assumed",
            },
            "groups": [g.name for g in plan.groups],
            "metrics": list(plan.metrics),
            "n_samples": n_samples,
            "seed": seed,
            "batch_size": batch_size,
            "thresholds": held,
            "captum-lie": __version__,
            "torch": torch.__version__,
            "onnxruntime": onnxruntime.__version__,
            "cpu": cpu.to_dict(),
        },
        notes=notes,
        skipped=found.skipped,
        images=pictures,
    )


def _note(notes: list[str], text: str | None) -> None:
    """Keep a note for the report, and give it as a warning at once: the work may take long."""
    if text is not None:
        notes.append(text)
        warnings.warn(text, stacklevel=3)
