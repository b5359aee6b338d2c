"""Which models a sweep is asked for: specs, patterns, lists in files, and named lists."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

from captum_lie import examples
from captum_lie.errors import InvalidValueError
from captum_lie.studies.specs import RANDOM, ModelSpec, parse_spec

#: Adapters name an object with the methods of :class:`Catalogue` under this entry point group.
ENTRY_POINTS = "captum_lie.catalogues"

EMBEDDED = "embedded"
_KINDS = {"cnn": "modern CNN", "cnn_blur": "modern CNN", "vit": "transformer", "mixer": "mixer"}


@dataclass(frozen=True)
class Listed:
    """A model of a list.

    Attributes:
        name: as in :func:`captum_lie.models.load_model`, and of certain weights.
        family: of architectures, such as ``resnet``.
        kind: ``early CNN``, ``modern CNN``, ``transformer``, ``mixer``; empty where unknown.
    """

    name: str
    family: str = ""
    kind: str = ""


class Catalogue(Protocol):
    """What an adapter knows of its models."""

    @property
    def lists(self) -> Sequence[str]:
        """Names of its lists."""
        ...

    def expand(self, name: str) -> Sequence[Listed] | None:
        """The models of a list or pattern of its own; None if it is not one."""
        ...

    def describe(self, name: str) -> Listed | None:
        """Family, kind and full name of one model; None if it is not its own.

        The full name says which weights, where the one that was asked for leaves that open.
        """
        ...

    def missing(self, name: str) -> str | None:
        """Why the weights of one model cannot be had, as far as can be told without a network."""
        ...


@dataclass(frozen=True)
class Asked:
    """A model that a sweep is to measure: where it comes from, and what is known of it."""

    spec: ModelSpec
    family: str = ""
    kind: str = ""


def expand(texts: Sequence[str]) -> list[Asked]:
    """The models of several arguments, each once, in order.

    Args:
        texts: each with commas between: a spec ``[LABEL=]NAME[@CHECKPOINT]``, where ``@random``
            asks for random weights; a pattern of an adapter (``timm:resnet*``); a text file with
            such a thing in each line; or a named list (``embedded``, ``paper``).

    Raises:
        ValueError: nothing by that name or pattern, or two models under one label.

    Example:
        >>> [asked.spec.label for asked in expand(["embedded", "ours=cnn@random"])]
        ['cnn', 'cnn_blur', 'vit', 'mixer', 'ours']
    """
    catalogues = _catalogues()
    found: dict[str, Asked] = {}
    for text in _items(texts):
        for asked in _expanded(text, catalogues):
            known = found.setdefault(asked.spec.label, asked)
            if known.spec != asked.spec:
                raise InvalidValueError(
                    f"Two models are called {asked.spec.label!r}: {known.spec.name} and "
                    f"{asked.spec.name}. Label one of them, LABEL={asked.spec.name}."
                )
    if not found:
        raise InvalidValueError("No model to sweep over: name one with --models.")
    return list(found.values())


def _items(texts: Sequence[str]) -> Iterator[str]:
    for text in (part.strip() for argument in texts for part in argument.split(",")):
        if text.endswith(".txt") and "=" not in text:
            path = Path(text)
            if not path.is_file():
                raise FileNotFoundError(f"There is no list of models {text}.")
            lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
            yield from (line for line in lines if line)
        elif text:
            yield text


def missing_weights(spec: ModelSpec) -> str | None:
    """Why a model's weights cannot be had, as far as can be told before loading them.

    Example:
        >>> missing_weights(ModelSpec("ours", "cnn", Path("nowhere.pth")))
        'There is no checkpoint nowhere.pth.'
    """
    if spec.random or ".py:" in spec.name:
        return None
    if spec.checkpoint is not None:
        return None if spec.checkpoint.is_file() else f"There is no checkpoint {spec.checkpoint}."
    return next(filter(None, (c.missing(spec.name) for c in _catalogues())), None)


def _expanded(text: str, catalogues: Sequence[Catalogue]) -> list[Asked]:
    name = text.removesuffix(f"@{RANDOM}")
    members = _members(name, catalogues)
    if members is not None:
        if not members:
            raise InvalidValueError(f"No model fits {name!r}.")
        specs = [replace(parse_spec(member.name), random=name != text) for member in members]
        return [Asked(s, m.family, m.kind) for s, m in zip(specs, members, strict=True)]
    if any(c in text for c in "*?[") and ".py:" not in text:
        lists = [EMBEDDED, *(name for c in catalogues for name in c.lists)]
        raise InvalidValueError(
            f"No adapter knows the pattern {text!r}. Lists: {', '.join(lists)}."
        )
    spec = parse_spec(text)
    if spec.name in examples.MODEL_NAMES:
        return [Asked(spec, spec.name, _KINDS.get(spec.name, ""))]
    described = [catalogue.describe(spec.name) for catalogue in catalogues]
    known = next((d for d in described if d is not None), Listed(spec.name))
    if spec.checkpoint is None and not spec.random:
        spec = replace(spec, name=known.name)
    return [Asked(spec, known.family, known.kind)]


def _members(name: str, catalogues: Sequence[Catalogue]) -> Sequence[Listed] | None:
    """The models of a list or pattern; None if it is neither."""
    if name == EMBEDDED:
        return [Listed(n, n, _KINDS.get(n, "")) for n in examples.MODEL_NAMES]
    return next((m for c in catalogues if (m := c.expand(name)) is not None), None)


def _catalogues() -> list[Catalogue]:
    """Those of installed adapters that can be imported."""
    found = []
    for entry in sorted(entry_points(group=ENTRY_POINTS)):
        try:
            found.append(entry.load())
        except ImportError:
            continue
    return found
