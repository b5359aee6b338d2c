"""What an audit had to take for granted, and signs that it was wrong, in words for the reader."""

from __future__ import annotations

import numpy as np
import torch

from captum_lie_onnx.behaviour import Array
from captum_lie_onnx.metadata import Preprocessing

#: Fewer images than this say nothing about how answers vary.
_FEWEST = 8
#: A first class that this share of the images has in common hardly depends on the image.
_SAME = 0.95
#: Mean total variation of the probabilities around their mean, below which they hardly vary.
_SPREAD = 0.01


def unstated(name: str, taken: Preprocessing) -> str:
    """What was assumed of a file that says nothing of its preprocessing.

    Example:
        >>> unstated("net.onnx", Preprocessing())[:66]
        'net.onnx does not say how its images are prepared, and nor did you'
    """
    return (
        f"{name} does not say how its images are prepared, and nor did you: it was given plain "
        f"{taken.channels} images in [0, 1], {taken.layout}, not normalised. If it expects "
        "others, say so: --mean and --std (0 and 0.00392 for values up to 255), --bgr."
    )


def constant_answers(name: str, outputs: Array) -> str | None:
    """A warning where the answers hardly differ from image to image.

    They do where at least 95 % of the images have the same first class, or where the probabilities
    (the scores, if these are probabilities, else their softmax) lie on average less than 0.01 in
    total variation from their mean over the images. Of fewer than eight images nothing is said.

    Args:
        outputs: scores ``[N, K]``.

    Example:
        >>> print(constant_answers("net", np.eye(10)))
        None
        >>> constant_answers("net", np.ones((10, 3)))[:65]
        'The answers of net hardly differ from image to image: class 0 com'
    """
    n, k = outputs.shape
    if n < _FEWEST:
        return None
    first = outputs.argmax(1)
    common = int(np.bincount(first).argmax())
    share = float((first == common).mean())
    scores = torch.from_numpy(outputs.astype(np.float64))
    sums = bool(((scores.sum(1) - 1).abs() < 1e-3).all() and (scores >= 0).all())
    likely = scores if sums and k > 1 else scores.softmax(1)
    spread = float((likely - likely.mean(0)).abs().sum(1).mean() / 2)
    if share < _SAME and spread >= _SPREAD:
        return None
    return (
        f"The answers of {name} hardly differ from image to image: class {common} comes first for "
        f"{100 * share:.0f} % of {n} images, and the probabilities lie {spread:.2g} from their "
        "mean (total variation). Few or no answers can then change, whatever the motion. Are the "
        "images of the kind that it knows, and prepared as it expects?"
    )
