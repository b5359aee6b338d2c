"""Family and kind of a timm model, from the module of timm that defines it."""

from __future__ import annotations

from functools import cache

import timm
from timm.models import get_deprecated_models

from captum_lie.errors import UnknownModelError
from captum_lie_timm.catalogue.table import read

#: Of a model: ``"early CNN"`` is a plain stack or of Inception modules (VGG, Inception v3 and v4,
#: Inception-ResNet); ``"modern CNN"`` any later convolutional network, from ResNet and Xception to
#: ConvNeXt; ``"transformer"`` one with self-attention in some stage, hybrids included; ``"mixer"``
#: mixes positions by MLPs or recurrences instead. ``"other"`` is what is not timm's, or newer than
#: this package. The paper tells CNNs, ViTs and mixers apart; early and modern are our division.
KINDS = ("early CNN", "modern CNN", "transformer", "mixer", "other")


def family_of(name: str) -> str:
    """The module of ``timm.models`` that defines a model.

    Args:
        name: as timm has it, with or without a tag, deprecated ones included; a prefix ``timm:`` is
            taken off.

    Raises:
        UnknownModelError: timm has no model by that name.

    Example:
        >>> family_of("resnet50.a1_in1k"), family_of("timm:tf_efficientnet_b0_ns")
        ('resnet', 'efficientnet')
    """
    architecture = name.removeprefix("timm:").split(".")[0]
    today = get_deprecated_models().get(architecture) or architecture
    if not timm.is_model(today):
        raise UnknownModelError(f"timm {timm.__version__} has no model {name!r}.")
    return timm.model_entrypoint(today).__module__.rpartition(".")[2]


def kind_of(name: str) -> str:
    """The kind of a model, one of :data:`KINDS`.

    It is that of the module, by what most of its models are: MobileNetV4's hybrids are filed under
    convolutional networks, PoolFormer with the attending MetaFormers under transformers.

    Args:
        name: as for :func:`family_of`.

    Raises:
        UnknownModelError: timm has no model by that name.

    Example:
        >>> [kind_of(name) for name in ("vgg11", "convnext_tiny", "swin_tiny_patch4_window7_224")]
        ['early CNN', 'modern CNN', 'transformer']
        >>> kind_of("mixer_b16_224.goog_in21k")
        'mixer'
    """
    return _kinds().get(family_of(name), "other")


@cache
def _kinds() -> dict[str, str]:
    return {row["module"]: row["kind"] for row in read("kinds.csv")}
