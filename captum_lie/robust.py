"""Group actions for :mod:`captum.robust`: what does a move of finite size do to a prediction?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from captum_lie.core.captum_compat import Inputs, Perturbation, as_tuple, like_inputs
from captum_lie.core.groups import DEFAULT_GROUP, GroupLike, get_group
from captum_lie.core.validation import check_inputs

__all__ = ["GroupPerturbation"]


class GroupPerturbation(Perturbation):
    """A one-parameter group as a perturbation, for Captum's robustness tools.

    ``AttackComparator`` compares a metric before and after the move, and ``MinParamPerturbation``
    with ``arg_name="t"`` finds the smallest move that changes a prediction; the Lie derivative is
    the rate of change at ``t = 0``. Where these tools are given a ``preproc_fn``, let them move the
    image before it (``apply_before_preproc=True``), so that the group acts on what you see.
    ``MinParamPerturbation`` stops at the first image of a batch that changes: give it one image at
    a time to learn the smallest move of each.

    Args:
        group: a group or its name (``"rotation"``, ``"translation_x"``, ...).

    Raises:
        TypeError, ValueError: no such group.

    Example:
        The smallest rotation, in steps of 0.01 radians, that changes the prediction for an image:

        >>> from captum.robust import MinParamPerturbation
        >>> from captum_lie.examples import load_images, load_model
        >>> model, (images, labels) = load_model("cnn"), load_images(2)
        >>> rotation = GroupPerturbation("rotation")
        >>> search = MinParamPerturbation(model, rotation, "t", 0.0, 1.6, 0.01)
        >>> rotated, t = search.evaluate(images[:1], target=labels[:1])
        >>> before = rotation(images[:1], t - 0.01)
        >>> [(model(x).argmax(1) == labels[:1]).item() for x in (before, rotated)]
        [True, False]
    """

    def __init__(self, group: GroupLike = DEFAULT_GROUP) -> None:
        self.group = get_group(group)

    def perturb(self, inputs: Inputs, t: float | Tensor) -> Any:
        """Transform images by the finite parameter ``t``.

        Args:
            inputs: images ``[N, C, H, W]``, or a tuple of them that are transformed together.
            t: one parameter for all images, or a tensor ``[N]`` with one for each, in the group's
                units (see :class:`captum_lie.Translation` and its siblings).

        Returns:
            The transformed images, a tuple for a tuple.

        Raises:
            TypeError, ValueError: images or ``t`` are not usable.
        """
        xs = as_tuple(inputs)
        check_inputs(xs)
        with torch.no_grad():
            return like_inputs(inputs, tuple(self.group.act(x, t) for x in xs))
