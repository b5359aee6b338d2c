"""Digits in files: the idx files of MNIST and the amat tables of rotated MNIST."""

from __future__ import annotations

import gzip
import math
import warnings
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from captum_lie.errors import InvalidValueError

#: First bytes of an idx file of unsigned bytes; the next byte is the number of dimensions.
_MAGIC = b"\x00\x00\x08"


def read_idx(path: Path) -> Tensor:
    """An idx file of unsigned bytes, plain or ``.gz``, as LeCun's MNIST has them.

    Raises:
        ValueError: not such a file, or cut off.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder) / "labels-idx1-ubyte"
        ...     _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))
        ...     read_idx(path).tolist()
        [7, 2, 1]
    """
    content = path.read_bytes()
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (EOFError, OSError, zlib.error) as error:
            raise InvalidValueError(f"{path} is damaged or cut off: {error}.") from error
    if content[:3] != _MAGIC or len(content) < 4:
        raise InvalidValueError(f"{path} is no idx file of unsigned bytes.")
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise InvalidValueError(f"{path} is cut off within its header.")
    shape = np.frombuffer(content[4:start], ">u4").tolist()
    if len(content) - start != math.prod(shape):
        raise InvalidValueError(
            f"{path} is damaged or cut off: its header says {' x '.join(map(str, shape))} bytes, "
            f"and {len(content) - start} are there."
        )
    return torch.from_numpy(np.frombuffer(content[start:], np.uint8).reshape(shape).copy())


def read_amat(path: Path) -> tuple[Tensor, Tensor]:
    """An amat table: a row per image of a square number of values in [0, 1], and its label.

    Returns:
        Images ``[N, 1, S, S]`` and labels ``[N]``.

    Raises:
        ValueError: not such a table.

    Source:
        Larochelle et al., "An empirical evaluation of deep architectures" (2007), whose
        ``mnist_all_rotation_normalized_float_*.amat`` are the original rotated MNIST.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of an empty file, refused below
            rows = np.loadtxt(path, dtype=np.float32, ndmin=2)
    except (ValueError, UnicodeDecodeError) as error:
        raise InvalidValueError(f"{path} is no table of numbers: {error}") from error
    side = round(max(rows.shape[1] - 1, 0) ** 0.5)
    values, labels = rows[:, :-1], rows[:, -1]
    if not len(rows) or side < 2 or side * side != values.shape[1]:
        raise InvalidValueError(
            f"{path}: each row must hold the pixels of a square image and a label; got a table of "
            f"{list(rows.shape)}."
        )
    if not ((values >= 0) & (values <= 1)).all() or not (labels == labels.round()).all():
        raise InvalidValueError(f"{path}: pixels must lie in [0, 1] and labels be whole numbers.")
    images = torch.from_numpy(values.reshape(-1, 1, side, side).copy())
    return images, torch.from_numpy(labels).long()
