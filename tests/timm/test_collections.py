"""The paper's models under today's names, and the family and kind of every timm model."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

timm = pytest.importorskip("timm")

from packaging.version import Version
from timm.models import get_deprecated_models

from captum_lie.errors import InvalidValueError, UnknownModelError
from captum_lie_timm import collection, family_of, kind_of, load
from captum_lie_timm.catalogue import COLLECTIONS, KINDS, unresolved
from captum_lie_timm.catalogue.page import page
from captum_lie_timm.catalogue.paper import FOUND_BY, Row, rows
from captum_lie_timm.catalogue.table import read

PAGE = Path(__file__).parents[2] / "docs" / "paper_models.md"

#: The timm for which the page was written.
WRITTEN_FOR = PAGE.read_text(encoding="utf-8").partition("timm ")[2].partition(" ")[0]

same_timm = pytest.mark.skipif(
    timm.__version__ != WRITTEN_FOR, reason=f"what timm {WRITTEN_FOR} states"
)


def resolved() -> list[Row]:
    return [row for row in rows("paper") if row.name]


@same_timm
def test_the_page_is_as_this_timm_has_it() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), (
        "run python -m captum_lie_timm.catalogue > docs/paper_models.md"
    )


@pytest.mark.skipif(
    Version(timm.__version__) < Version(WRITTEN_FOR), reason="an older timm may have fewer models"
)
def test_newer_versions_of_timm_lose_no_model() -> None:
    assert {model.paper_name for model in unresolved()} <= {
        row.paper_name for row in rows("paper") if not row.name
    }


@pytest.mark.parametrize("name", COLLECTIONS)
def test_every_model_is_resolved_or_told_why_not(name: str) -> None:
    found = [entry.paper_name for entry in collection(name)]
    lacking = [model.paper_name for model in unresolved(name)]
    assert Counter(found + lacking) == Counter(row.paper_name for row in rows(name))
    assert all(model.reason for model in unresolved(name))


def test_at_least_350_of_the_papers_models_resolve_to_models_of_their_own() -> None:
    names = [entry.name for entry in collection("paper")]
    assert len(names) == len(set(names)) >= 350


def test_the_parts_lie_within_the_whole() -> None:
    assert len({row.paper_name for row in rows("paper")}) == len(rows("paper"))
    assert set(rows("paper-core")) < set(rows("paper-layerwise")) < set(rows("paper"))
    assert {part for row in rows("paper") for part in row.lists.split()} == {"core", "layerwise"}


def without_checksum(file: str) -> str:
    """``effnetb1_pruned`` of ``effnetb1_pruned-bea43a3a.pth``."""
    return re.sub(r"([-_][0-9a-f]{8})?\.pth$", "", file).removeprefix("legacy_")


@same_timm
def test_tags_are_known_as_the_table_says() -> None:
    """Files against those that timm states for a tag; tags against all that it has."""
    for row in resolved():
        config = timm.get_pretrained_cfg(row.name)
        stated = {str(each).rsplit("/", 1)[-1] for each in (config.url, config.file) if each}
        tags = timm.list_models(f"{row.name.split('.')[0]}.*", include_tags=True)
        holds = {
            "file": row.weights in stated,
            "copy": {without_checksum(f) for f in stated} == {without_checksum(row.weights)},
            "history": not stated,
            "single": not stated and tags == [row.name],
            "tag": not stated and len(tags) > 1,
        }
        assert holds[row.found_by], row
        assert row.found_by == "file" or not holds["file"], row
    assert {row.found_by for row in resolved()} == FOUND_BY.keys()


@same_timm
def test_renamings_are_timms_own_but_for_those_that_change_the_model() -> None:
    """Its map sends three sizes of ResNeXt to a fourth, and classifiers of 21k classes to 1k."""
    own = {old: new for old, new in get_deprecated_models().items() if new}
    renamed = [row for row in resolved() if row.paper_name in own]
    assert len(renamed) > 100
    others = {row.paper_name for row in renamed if not row.name.startswith(own[row.paper_name])}
    assert others == {
        "ig_resnext101_32x16d",
        "ig_resnext101_32x32d",
        "mixer_b16_224_in21k",
        "mixer_l16_224_in21k",
    }
    kept = [row for row in resolved() if row.paper_name not in own]
    moved = {row.paper_name for row in kept if row.name.split(".")[0] != row.paper_name}
    assert moved == {
        "tnt_s_patch16_224",
        "vit_base_patch16_sam_224",
        "vit_base_patch32_sam_224",
    }


def test_a_name_with_its_tag_can_be_loaded() -> None:
    entry = next(e for e in collection("paper") if e.paper_name == "tf_efficientnet_b0_ns")
    assert entry.name == "tf_efficientnet_b0.ns_jft_in1k"
    assert load(entry.name, pretrained=False).input_size == (224, 224)


def test_every_module_of_timm_has_a_kind() -> None:
    table = read("kinds.csv")
    known = [row["module"] for row in table]
    assert set(timm.list_modules()) - set(known) == set(), "add them to kinds.csv"
    assert known == sorted(set(known))
    assert {row["kind"] for row in table} == set(KINDS) - {"other"}


@same_timm
def test_no_kind_is_of_a_module_that_timm_has_not() -> None:
    assert {row["module"] for row in read("kinds.csv")} == set(timm.list_modules())


@pytest.mark.parametrize("name", COLLECTIONS)
def test_the_papers_models_are_of_all_kinds(name: str) -> None:
    entries = collection(name)
    assert {entry.kind for entry in entries} == set(KINDS) - {"other"}
    assert all((e.family, e.kind) == (family_of(e.name), kind_of(e.name)) for e in entries)


@pytest.mark.parametrize(
    ("name", "family", "kind"),
    [
        ("vgg16_bn", "vgg", "early CNN"),
        ("inception_resnet_v2.tf_in1k", "inception_resnet_v2", "early CNN"),
        ("resnet50.a1_in1k", "resnet", "modern CNN"),
        ("convmixer_768_32", "convmixer", "modern CNN"),
        ("timm:xcit_nano_12_p8_224", "xcit", "transformer"),
        ("vit_base_r50_s16_384", "vision_transformer_hybrid", "transformer"),
        ("gmlp_s16_224", "mlp_mixer", "mixer"),
        ("gluon_senet154", "resnet", "modern CNN"),  # deprecated
    ],
)
def test_family_and_kind(name: str, family: str, kind: str) -> None:
    assert (family_of(name), kind_of(name)) == (family, kind)


def test_models_that_others_register_are_of_another_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    def toy_net(pretrained: bool = False) -> None: ...

    toy_net.__module__ = "theirs.networks.toy"
    monkeypatch.setattr(timm, "is_model", lambda name: name == "toy_net")
    monkeypatch.setattr(timm, "model_entrypoint", {"toy_net": toy_net}.__getitem__)
    assert (family_of("toy_net"), kind_of("toy_net")) == ("toy", "other")


def test_unknown_names_are_errors() -> None:
    with pytest.raises(UnknownModelError, match="has no model 'resnet9000'"):
        kind_of("resnet9000")
    with pytest.raises(InvalidValueError, match=r"'papers'.*paper, paper-core, paper-layerwise"):
        collection("papers")


def test_what_timm_lacks_is_said_with_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm, "is_model_pretrained", lambda name: name != "resnet34.bt_in1k")
    (model,) = unresolved("paper-core")
    assert (model.paper_name, model.reason) == (
        "resnet34",
        f"timm {timm.__version__} has no resnet34.bt_in1k",
    )
    assert len(collection("paper-core")) == len(rows("paper-core")) - 1
