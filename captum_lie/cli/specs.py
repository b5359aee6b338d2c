"""Models as they are written on a command line: ``LABEL=NAME@CHECKPOINT``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from captum_lie.errors import InvalidValueError
from captum_lie.studies.measurement import UNTRAINED

#: A label has none of the characters that paths and names of models are made of.
_LABELLED = re.compile(r"(?P<label>[^=:/\\@]+)=(?P<rest>.*)")

#: In these names ``@`` marks a revision.
_REPOSITORIES = ("hf-hub:", "hf_hub:")


@dataclass(frozen=True)
class ModelSpec:
    """One model that a user asked for.

    Attributes:
        label: what to call it in tables, files and figures.
        name: for :func:`captum_lie.studies.models.load_model`.
        checkpoint: weights to load instead of the model's own.
    """

    label: str
    name: str
    checkpoint: Path | None = None


def parse_spec(text: str) -> ModelSpec:
    """``[LABEL=]NAME[@CHECKPOINT]``; a factory without a label is called by its file's name.

    Raises:
        ValueError: a part of it is empty.

    Example:
        >>> parse_spec("ours=runs/net.py:build@last.pth")
        ModelSpec(label='ours', name='runs/net.py:build', checkpoint=PosixPath('last.pth'))
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
