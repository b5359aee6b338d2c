"""What parent and child send each other: a header and arrays.

On the wire: four bytes of length, that much JSON, which names dtype and shape of each array, then
the arrays' bytes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Header = dict[str, Any]


def pack(header: Header, arrays: list[Array]) -> list[bytes | memoryview]:
    """A message in pieces, arrays uncopied where they are contiguous."""
    arrays = [np.ascontiguousarray(a) for a in arrays]
    about = [{"dtype": a.dtype.str, "shape": a.shape} for a in arrays]
    text = json.dumps({**header, "arrays": about}).encode()
    return [
        struct.pack("<I", len(text)),
        text,
        *(a.reshape(-1).view(np.uint8).data for a in arrays if a.size),
    ]


def unpack(take: Callable[[int], bytes | bytearray]) -> tuple[Header, list[Array]]:
    """The next message.

    Args:
        take: the next so many bytes.

    Example:
        >>> import io
        >>> stream = io.BytesIO(b"".join(pack({"verb": "run"}, [np.ones((2, 1), "<f4")])))
        >>> header, (array,) = unpack(stream.read)
        >>> header, array.tolist()
        ({'verb': 'run'}, [[1.0], [1.0]])
    """
    (size,) = struct.unpack("<I", take(4))
    header: Header = json.loads(take(size))
    arrays = []
    for about in header.pop("arrays"):
        dtype = np.dtype(about["dtype"])
        size = int(np.prod(about["shape"], dtype=np.int64)) * dtype.itemsize
        arrays.append(np.frombuffer(take(size), dtype).reshape(about["shape"]))
    return header, arrays
