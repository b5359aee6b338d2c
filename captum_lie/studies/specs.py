"""Models as they are written on a command line, ``LABEL=NAME@CHECKPOINT``, and loaded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from captum_lie.errors import InvalidValueError
from captum_lie.images import view_of
from captum_lie.images.preprocessing import Normalized
from captum_lie.studies.candidates import UNTRAINED, Candidate, untrained_twin
from captum_lie.studies.models import has_untrained_twin, load_model

#: A label has none of the characters that paths and names of models are made of.
_LABELLED = re.compile(r"(?P<label>[^=:/\\@]+)=(?P<rest>.*)")

#: In the place of a checkpoint.
RANDOM = "random"

#: In these names ``@`` marks a revision.
_REPOSITORIES = ("hf-hub:", "hf_hub:")


@dataclass(frozen=True)
class ModelSpec:
    """One model that a user asked for.

    Attributes:
        label: what to call it in tables, files and figures.
        name: for :func:`captum_lie.studies.models.load_model`.
        checkpoint: weights to load instead of the model's own.
        random: random weights instead.
    """

    label: str
    name: str
    checkpoint: Path | None = None
    random: bool = False


def parse_spec(text: str) -> ModelSpec:
    """``[LABEL=]NAME[@CHECKPOINT]``; a factory without a label is called by its file's name.

    ``@random`` stands for random weights.

    Raises:
        ValueError: a part of it is empty.

    Example:
        >>> spec = parse_spec("ours=runs/net.py:build@last.pth")
        >>> spec.label, spec.name, str(spec.checkpoint)
        ('ours', 'runs/net.py:build', 'last.pth')
        >>> parse_spec("runs/net.py:build").label, parse_spec("timm:resnet18").label
        ('net.py:build', 'timm:resnet18')
    """
    found = _LABELLED.fullmatch(text)
    label, name = (found["label"].strip(), found["rest"]) if found else ("", text)
    checkpoint = ""
    if "@" in name and not name.startswith(_REPOSITORIES):
        name, _, checkpoint = name.partition("@")
        if not checkpoint:
            raise InvalidValueError(f"--model {text!r}: give a file after '@'.")
    if not name or (found and not label) or text.startswith("="):
        raise InvalidValueError(f"--model takes [LABEL=]NAME[@CHECKPOINT]; got {text!r}.")
    if label.endswith(UNTRAINED):
        raise InvalidValueError(f"--model {text!r}: {UNTRAINED.strip()} marks a model's control.")
    if not label:
        label = name.rpartition("/")[2] if ".py:" in name else name
        label += f"@{Path(checkpoint).name}" if checkpoint else ""
    if checkpoint == RANDOM:
        return ModelSpec(label, name, random=True)
    return ModelSpec(label, name, Path(checkpoint) if checkpoint else None)


def parse_specs(texts: Sequence[str], checkpoint: Path | None = None) -> list[ModelSpec]:
    """Several models, each under a label of its own.

    Args:
        checkpoint: weights for the only model.

    Raises:
        ValueError: two models under one label, or a checkpoint that could belong to several.

    Example:
        >>> [spec.label for spec in parse_specs(["small=resnet18", "large=resnet50"])]
        ['small', 'large']
    """
    specs = [parse_spec(text) for text in texts]
    labels = [spec.label for spec in specs]
    for label in labels:
        if labels.count(label) > 1:
            raise InvalidValueError(
                f"Two models are called {label!r}: label them, --model LABEL={specs[0].name}, "
                "each with a label of its own."
            )
    if checkpoint is None:
        return specs
    if len(specs) > 1 or specs[0].checkpoint is not None:
        raise InvalidValueError(
            f"--checkpoint {checkpoint} is for a single model without one: "
            f"write --model {specs[0].name}@FILE for each that has one."
        )
    return [ModelSpec(specs[0].label, specs[0].name, checkpoint)]


#: Mean and standard deviation of each channel.
Normalisation = tuple[Sequence[float], Sequence[float]]


def candidates_from(
    specs: Sequence[ModelSpec],
    *,
    pretrained: bool = True,
    normalisation: Normalisation | None = None,
    control: bool = False,
) -> list[Candidate]:
    """The models of several specs, each followed by its untrained twin if asked for.

    Args:
        pretrained: False loads untrained architectures.
        normalisation: of all of them, instead of their own.
        control: add the twins of models that have one.

    Raises:
        ValueError: nothing by that name, or not a model.

    Example:
        >>> [c.name for c in candidates_from([parse_spec("cnn")], control=True)]
        ['cnn', 'cnn (untrained)']
    """
    candidates = []
    for spec in specs:
        model = load(spec, pretrained=pretrained, normalisation=normalisation)
        candidates.append(Candidate(spec.label, model))
        if control and pretrained and not spec.random and has_untrained_twin(spec.name):
            bare = ModelSpec(spec.label, spec.name)
            twin = load(bare, pretrained=False, normalisation=normalisation)
            candidates.append(untrained_twin(spec.label, twin))
    return candidates


def load(
    spec: ModelSpec, *, pretrained: bool = True, normalisation: Normalisation | None = None
) -> nn.Module:
    """The model of a spec, which says what it is in reports (``provenance``)."""
    trained = pretrained and not spec.random
    model = load_model(spec.name, pretrained=trained, checkpoint=spec.checkpoint)
    provenance = getattr(model, "provenance", None)
    if normalisation:
        view, classes = view_of(model), getattr(model, "classes", None)
        model = Normalized(model, *normalisation, view=view, classes=classes).eval()
    what = f"{spec.name}: {provenance}" if provenance else spec.name
    setattr(model, "provenance", what)  # noqa: B010 (a module's attributes are typed as modules)
    return model
