"""Which output of a model is the class that a label names."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from captum_lie.images.sources import Label


def match_labels(
    labels: Sequence[Label],
    n_outputs: int,
    *,
    names: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
) -> tuple[Tensor | None, str]:
    """Labels as indices of a model's outputs, and how they were understood.

    Args:
        labels: of each image: a class's name or its number.
        n_outputs: of the model.
        names: of the classes that the labels number, if they number some.
        classes: what the model calls its outputs, each by all its names with commas between.

    Returns:
        Indices ``[N]``, or None where some label has no counterpart; and a sentence that says which
        rule matched them, or what did not match.

    Example:
        >>> match_labels(["cat", "Tabby_Cat"], 2, classes=["tabby, tabby cat", "cat"])
        (tensor([1, 0]), 'matched by name')
        >>> match_labels(["dog"], 2, classes=["tabby", "cat"])[1]
        "cannot be matched: no class of the model is called 'dog'"
    """
    if names is not None and all(isinstance(k, int) and 0 <= k < len(names) for k in labels):
        if classes is None and len(names) == n_outputs:
            return torch.tensor(labels), "numbers of the data set's classes"
        labels = [names[int(k)] for k in labels]
    if classes is not None:
        found, missing = _by_name([str(k) for k in labels], classes)
        if not missing:
            return torch.tensor(found), "matched by name"
    else:
        missing = [str(k) for k in labels]
    if all(str(k).isdecimal() for k in labels):
        indices = [int(k) for k in labels]
        if max(indices) < n_outputs:
            return torch.tensor(indices), "numbers of the model's outputs"
        return None, (
            f"cannot be matched: the model has {n_outputs} outputs, and a label is {max(indices)}"
        )
    known = sorted({str(k) for k in labels})
    if classes is None and len(known) == n_outputs:
        return (
            torch.tensor([known.index(str(k)) for k in labels]),
            "classes in alphabetical order (the model names none)",
        )
    some = ", ".join(repr(k) for k in list(dict.fromkeys(missing))[:3])
    if classes is not None:
        return None, f"cannot be matched: no class of the model is called {some}"
    return None, (
        f"cannot be matched: {len(known)} classes ({some}, ...) for {n_outputs} outputs "
        "that have no names"
    )


def _by_name(labels: Sequence[str], classes: Sequence[str]) -> tuple[list[int], list[str]]:
    """Index of each label, and the labels that name no class or more than one."""
    whole = {_plain(name): k for k, name in enumerate(classes)}
    single: dict[str, set[int]] = {}
    for k, name in enumerate(classes):
        for part in name.split(","):
            single.setdefault(_plain(part), set()).add(k)
    found: list[int] = []
    missing: list[str] = []
    for label in labels:
        key = _plain(label)
        candidates = {whole[key]} if key in whole else single.get(key, set())
        if len(candidates) == 1:
            found.extend(candidates)
        else:
            missing.append(label)
    return found, missing


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").replace("-", " ").casefold().split())
