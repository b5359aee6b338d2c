"""What a sweep hears of timm's models: which weights, and whether they can be had."""

from __future__ import annotations

import pytest

timm = pytest.importorskip("timm")

from captum_lie.studies.sweeping import expand
from captum_lie.studies.sweeping.listing import missing_weights
from captum_lie_timm.catalogue import sweeping


def test_models_go_by_the_tag_of_their_weights_as_in_timms_results() -> None:
    tag = timm.get_pretrained_cfg("resnet10t").tag
    for text, label, name in (
        ("timm:resnet10t", "timm:resnet10t", f"timm:resnet10t.{tag}"),
        ("resnet10t", "resnet10t", f"resnet10t.{tag}"),
        ("timm:resnet10t*", "resnet10t", f"timm:resnet10t.{tag}"),
        ("timm:vit_tiny_patch16_224.augreg_in21k", "timm:vit_tiny_patch16_224.augreg_in21k",
         "timm:vit_tiny_patch16_224.augreg_in21k"),
        ("timm:resnet10t@random", "timm:resnet10t@random", "timm:resnet10t"),
        ("timm:lcnet_035", "timm:lcnet_035", "timm:lcnet_035"),  # timm has no weights for it
        ("imagenet:efficientnet_lite0", "imagenet:efficientnet_lite0",
         "imagenet:efficientnet_lite0"),
    ):  # fmt: skip
        (asked,) = expand([text])
        assert (asked.spec.label, asked.spec.name) == (label, name)
        assert asked.family
        assert asked.kind


def test_what_cannot_be_had_is_said_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(sweeping, "try_to_load_from_cache", lambda *_: None)

    def why(text: str) -> str | None:
        (asked,) = expand([text])
        return missing_weights(asked.spec)

    assert why("timm:resnet999") == f"timm {timm.__version__} has no model resnet999"
    assert "timm has no weights for lcnet_035: add @random" in (why("timm:lcnet_035") or "")
    hub = timm.get_pretrained_cfg("test_vit").hf_hub_id
    assert why("timm:test_vit") == f"offline, and the weights {hub} are not in the hub's cache"
    assert why("timm:test_vit@random") is None
    assert why("cnn") is None
    monkeypatch.setattr(sweeping, "try_to_load_from_cache", lambda *_: "there.safetensors")
    assert why("timm:test_vit") is None
