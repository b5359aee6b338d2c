"""``captum-lie audit``: does a deployed file still react the same?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
import typer
from torch import nn

from captum_lie.extending import options as shared
from captum_lie.extending.commands import (
    explained,
    find_models,
    parse_groups,
    parse_metrics,
    parse_normalisation,
    parse_size,
    say_written,
)
from captum_lie_onnx.cli import options as o
from captum_lie_onnx.cli.extra import extra

if TYPE_CHECKING:  # onnx is an extra: the commands are listed without it
    from captum_lie_onnx.audit_settings import AuditSettings
    from captum_lie_onnx.metadata import Preprocessing


def audit_command(
    model: o.File,
    images: shared.Images = "builtin",
    reference: o.Reference = None,
    out: shared.Out = Path("captum-lie-audit"),
    quantize: o.Quantise = None,
    reduce_range: o.Reduce = o.ReduceRange.auto,
    mean: shared.Mean = None,
    std: shared.Std = None,
    bgr: o.Bgr = False,
    groups: shared.Groups = o.GROUPS,
    metrics: o.SampledMetrics = "all",
    samples: o.Samples = 4,
    preset: o.Preset = None,
    thresholds: o.ThresholdFile = None,
    threshold: o.Threshold = None,
    derivative: o.DerivativeFile = None,
    size: shared.Size = None,
    limit: shared.Limit = 128,
    max_unreadable: o.MaxUnreadable = 0.1,
    checkpoint: shared.Checkpoint = None,
    batch_size: shared.BatchSize = 16,
    threads: o.Threads = None,
    memory: o.Memory = 4,
    load_seconds: o.LoadSeconds = 60,
    run_seconds: o.RunSeconds = 120,
    total_seconds: o.TotalSeconds = 14400,
    allow_domain: o.AllowDomain = None,
    seed: shared.Seed = 0,
    json: shared.AsJson = False,
) -> None:
    """Audit an ONNX file: did export, optimisation or quantisation change how it reacts to motion?

    Writes audit.html, audit.json, audit.csv and junit.xml. Exit code 0: all within the thresholds;
    1: a threshold is exceeded; 2: the file, the images or the options cannot be used.

    Examples:

      captum-lie audit cnn.onnx --reference cnn

      captum-lie audit model.onnx --images photos --reference mymodel.py:build

      captum-lie audit model.onnx --images photos --quantize static
    """
    with explained(), extra():
        from captum_lie_onnx.audit_settings import AuditSettings
        from captum_lie_onnx.auditing import run_audit
        from captum_lie_onnx.cli.terminal import print_report
        from captum_lie_onnx.images import BUILTIN
        from captum_lie_onnx.inspection import inspect
        from captum_lie_onnx.limits import Limits
        from captum_lie_onnx.thresholds import METRICS, resolve_thresholds

        start = preset.value if preset else "quantized" if quantize else "export"
        limits = Limits(
            memory=int(memory * 2**30),
            load_seconds=load_seconds,
            run_seconds=run_seconds,
            total_seconds=total_seconds,
            allowed_domains=tuple(allow_domain or ()),
        )
        settings = AuditSettings(
            derivative=derivative,
            preprocessing=_preprocessing(mean, std, bgr),
            groups=parse_groups(groups, shared.InterpolationName.bilinear, None),
            metrics=list(METRICS) if metrics == "all" else parse_metrics(metrics),
            n_samples=samples,
            seed=seed,
            thresholds=resolve_thresholds(start, thresholds, threshold or ()),
            size=parse_size(size),
            limit=limit,
            max_unreadable=max_unreadable,
            batch_size=batch_size,
            threads=threads,
            limits=limits,
            reference_name=reference,
            show_progress=True,
        )
        if reference is not None:  # which may take long to load
            inspect(model, limits)
        other = _reference(reference, checkpoint)
        source = images if images == BUILTIN else Path(images)
        audited = model
        if quantize:
            audited = _int8(model, source, out, quantize, reduce_range, settings)
            other = other if other is not None else model
        report = run_audit(audited, source, other, settings)
        written = report.save(out)
        if json:
            print(report.to_json())
        else:
            print_report(report)
            say_written([*([audited] if quantize else []), *written])
    raise typer.Exit(report.exit_code)


_REDUCE: dict[o.ReduceRange, bool | Literal["auto"]] = {
    o.ReduceRange.auto: "auto",
    o.ReduceRange.on: True,
    o.ReduceRange.off: False,
}


def _int8(
    model: Path,
    source: Path | str,
    out: Path,
    mode: o.QuantisationMode,
    reduce_range: o.ReduceRange,
    settings: AuditSettings,
) -> Path:
    """Make the int8 variant of a file, calibrated on the images of its audit."""
    from captum_lie_onnx.auditing import wanted_by
    from captum_lie_onnx.images import read_images
    from captum_lie_onnx.quantisation import quantize
    from captum_lie_onnx.runtime import OnnxModel

    with OnnxModel(model, limits=settings.limits, assumed=settings.preprocessing) as opened:
        wanted = wanted_by(opened, settings)
    calibration = read_images(source, wanted, settings.limit, settings.max_unreadable).images
    out.mkdir(parents=True, exist_ok=True)
    return quantize(
        model,
        out / f"{model.stem}.int8-{mode.value}.onnx",
        mode.value,
        calibration,
        reduce_range=_REDUCE[reduce_range],
        preprocessing=settings.preprocessing,
        limits=settings.limits,
    )


def _preprocessing(mean: str | None, std: str | None, bgr: bool) -> Preprocessing | None:
    """What a file takes, if the options say anything of it."""
    from captum_lie_onnx.metadata import Preprocessing

    normalisation = parse_normalisation(mean, std)
    if normalisation is None and not bgr:
        return None
    means, stds = normalisation or (None, None)
    if means is not None and stds is not None and len(means) != len(stds):
        longest = max(len(means), len(stds))  # one number stands for all channels
        means, stds = (v * longest if len(v) == 1 else v for v in (means, stds))
    return Preprocessing(
        mean=None if means is None else tuple(means),
        std=None if stds is None else tuple(stds),
        channels="BGR" if bgr else "RGB",
        included=normalisation is None,
    )


def _reference(name: str | None, checkpoint: Path | None) -> nn.Module | Path | None:
    """Files by their endings, everything else is a model's name."""
    if name is None:
        return None
    if name.endswith((".onnx", ".json")):
        return Path(name)
    (candidate,) = find_models([name], checkpoint=checkpoint)
    return candidate.model.to(torch.device("cpu"))
