"""``captum-lie export``: a model as an ONNX file."""

from __future__ import annotations

from pathlib import Path

from captum_lie import examples
from captum_lie.errors import InvalidValueError
from captum_lie.extending import options as shared
from captum_lie.extending.commands import (
    explained,
    find_models,
    parse_groups,
    parse_size,
    say_written,
)
from captum_lie.images import resized
from captum_lie_onnx.cli import options as o
from captum_lie_onnx.cli.extra import extra


def export_command(
    model: shared.Model,
    out: o.OutFile = None,
    size: shared.Size = None,
    mean: shared.Mean = None,
    std: shared.Std = None,
    pretrained: shared.Pretrained = True,
    checkpoint: shared.Checkpoint = None,
    derivative: o.WithDerivative = False,
    groups: shared.Groups = o.GROUPS,
    opset: o.Opset = None,
    dynamic_batch: o.DynamicBatch = True,
) -> None:
    """Export a model to ONNX, checked against PyTorch before it is written.

    Normalisation is part of the graph, which takes plain RGB images in [0, 1].

    Examples:

      captum-lie export --model cnn --out cnn.onnx --derivative

      captum-lie export --model mymodel.py:build --size 224x224
    """
    with explained(), extra():
        from captum_lie_onnx.derivative_export import export_lie_derivative
        from captum_lie_onnx.exporting import export

        (candidate,) = find_models(
            [model], pretrained=pretrained, checkpoint=checkpoint, mean=mean, std=std
        )
        module = candidate.model
        wanted = parse_size(size) or getattr(module, "input_size", None)
        if wanted is None and model not in examples.MODEL_NAMES:
            raise InvalidValueError(f"{model} does not say its input size: say it with --size HxW.")
        example = resized(examples.load_images(2)[0], wanted)
        path = out or Path(f"{Path(model.partition(':')[0]).stem}.onnx")
        written = [
            export(module, example, path, opset=opset, dynamic_batch=dynamic_batch, name=model)
        ]
        if derivative:
            chosen = parse_groups(groups, shared.InterpolationName.bilinear, None)
            beside = path.with_suffix(".lie.onnx")
            written.append(export_lie_derivative(module, chosen, example, beside, opset=opset))
        say_written(written)
