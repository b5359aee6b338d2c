"""What ``captum-lie sweep`` asks of this adapter: its lists and patterns, and what it knows."""

from __future__ import annotations

import os
from collections.abc import Sequence

import timm
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.constants import HF_HUB_OFFLINE

from captum_lie.extending.studies import Listed
from captum_lie_timm import imagenet
from captum_lie_timm.catalogue.kinds import family_of, kind_of
from captum_lie_timm.catalogue.paper import COLLECTIONS, collection

PREFIX = "timm:"
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


class TimmCatalogue:
    """timm's models for a sweep.

    Example:
        >>> [model.name for model in TimmCatalogue().expand("timm:resnet1*t")]
        ['resnet10t=timm:resnet10t.c3_in1k', 'resnet14t=timm:resnet14t.c3_in1k']
        >>> TimmCatalogue().describe("timm:resnet10t")
        Listed(name='timm:resnet10t.c3_in1k', family='resnet', kind='modern CNN')
    """

    @property
    def lists(self) -> Sequence[str]:
        return tuple(COLLECTIONS)

    def expand(self, name: str) -> Sequence[Listed] | None:
        """The models of a list of the paper's, or those that ``timm:PATTERN`` fits."""
        if name in COLLECTIONS:
            return [Listed(_labelled(e.name), e.family, e.kind) for e in collection(name)]
        if name.startswith(PREFIX) and any(c in name for c in "*?["):
            fitting = timm.list_models(name.removeprefix(PREFIX))
            return [
                Listed(f"{n}={PREFIX}{_with_tag(n)}", family_of(n), kind_of(n)) for n in fitting
            ]
        return None

    def describe(self, name: str) -> Listed | None:
        """Family and kind of a timm model, by its name with or without the prefix.

        Its name gets the tag of the weights that this version of timm loads for it.
        """
        plain = name.removeprefix(PREFIX)
        if plain.startswith(imagenet.PREFIX):
            plain = f"tf_{plain.removeprefix(imagenet.PREFIX)}"
        if not timm.is_model(plain.partition(".")[0]):
            return None
        full = name if imagenet.PREFIX in name else name.replace(plain, _with_tag(plain))
        return Listed(full, family_of(plain), kind_of(plain))

    def missing(self, name: str) -> str | None:
        """Why a model's weights cannot be had, where that is known without asking the network."""
        plain = name.removeprefix(PREFIX)
        if not timm.is_model(plain.partition(".")[0]):
            own = name.startswith(PREFIX) and ":" not in plain
            return f"timm {timm.__version__} has no model {plain}" if own else None
        config = timm.get_pretrained_cfg(plain, allow_unregistered=True)
        if config is None or not config.has_weights:
            return f"timm has no weights for {plain}: add @random for random ones"
        offline = HF_HUB_OFFLINE or os.environ.get("TRANSFORMERS_OFFLINE")
        if not offline or not config.hf_hub_id or config.file:
            return None
        cached = [try_to_load_from_cache(config.hf_hub_id, file) for file in _WEIGHTS]
        if any(isinstance(path, str) for path in cached):
            return None
        return f"offline, and the weights {config.hf_hub_id} are not in the hub's cache"


def _with_tag(name: str) -> str:
    """A model's name with the tag of its default weights, where it has some."""
    config = None if "." in name else timm.get_pretrained_cfg(name)
    return f"{name}.{config.tag}" if config is not None and config.has_weights else name


def _labelled(name: str) -> str:
    return f"{name}={PREFIX}{name}"


catalogue = TimmCatalogue()
