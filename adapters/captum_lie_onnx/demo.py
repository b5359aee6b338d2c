"""What this adapter adds to ``captum-lie demo``: export, quantise and audit an embedded model."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from captum_lie.examples import load_images, load_model
from captum_lie.extending.commands import notes
from captum_lie.extending.pages import Section, render

#: The model, the groups whose derivative goes into the graph, and the images.
MODEL, GROUPS, IMAGES = "cnn_blur", ("translation_x", "rotation"), 32


def section(out: Path) -> Section | None:
    """Write ``audit/`` into the demo's folder; None where the extra ``onnx`` is not installed."""
    if find_spec("onnxruntime") is None or find_spec("onnx") is None:
        notes.print("Install 'captum-lie[onnx]' to see the audit of an exported model, too.")
        return None
    from captum_lie_onnx import audit, export, export_lie_derivative, quantize, resolve_thresholds
    from captum_lie_onnx.page import page_values

    folder = out / "audit"
    folder.mkdir(parents=True, exist_ok=True)
    model, (images, _) = load_model(MODEL), load_images(IMAGES)
    file = export(model, images[:2], folder / f"{MODEL}.onnx", name=MODEL)
    export_lie_derivative(model, list(GROUPS), images[:2], folder / f"{MODEL}.lie.onnx")
    exported = audit(file, images, model, groups=GROUPS, reference_name=MODEL)
    exported.save(folder / "export")
    int8 = quantize(file, folder / f"{MODEL}.int8.onnx", "static", images)
    # The file's behaviour was just measured: its report is the reference.
    quantised = audit(
        int8,
        images,
        folder / "export" / "audit.json",
        groups=GROUPS,
        thresholds=resolve_thresholds("quantized"),
    )
    quantised.save(folder / "int8")
    html = render(
        "section.html.j2",
        package="captum_lie_onnx",
        model=MODEL,
        exported=exported,
        **page_values(quantised),
    )
    return Section("Does the deployed file still react the same?", html)
