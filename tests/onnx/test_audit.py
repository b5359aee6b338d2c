"""The audit tells a good deployment from bad ones made on purpose, and says by which lines."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("onnxruntime")

from captum_lie import LocalEquivarianceError
from captum_lie.examples import load_images, load_model
from captum_lie.examples.models import BlurPool, Normalise
from captum_lie_onnx import AuditReport, audit, export, export_lie_derivative, quantize
from captum_lie_onnx.audit_record import read_behaviour
from captum_lie_onnx.audit_settings import AuditOptions
from captum_lie_onnx.images import read_images

if TYPE_CHECKING:
    from typing_extensions import Unpack

GROUPS = ["translation_x", "rotation"]
IMAGES = load_images(24)[0]


def look(
    path: Path, reference: nn.Module | Path | None = None, **options: Unpack[AuditOptions]
) -> AuditReport:
    settings: AuditOptions = {"groups": GROUPS, "n_samples": 3}
    settings.update(options)
    return audit(path, IMAGES, reference, **settings)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return load_model("cnn_blur")


@pytest.fixture(scope="module")
def good(model: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(model, IMAGES[:2], tmp_path_factory.mktemp("good") / "model.onnx")


@pytest.fixture(scope="module")
def report(good: Path, model: nn.Module) -> AuditReport:
    return look(good, model)


class Before(nn.Module):
    """A model behind a preprocessing of its own."""

    def __init__(self, model: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self.change = model, change

    def forward(self, x: Tensor) -> Tensor:
        return self.model(self.change(x))


def wrong_normalisation(model: nn.Module) -> nn.Module:
    broken = copy.deepcopy(model)
    for module in broken.modules():
        if isinstance(module, Normalise):
            module.mean, module.std = 0.45, 0.225
    return broken


def swapped_channels(model: nn.Module) -> nn.Module:
    return Before(model, lambda x: x.flip(1))


def misread_layout(model: nn.Module) -> nn.Module:
    return Before(model, lambda x: x.permute(0, 2, 3, 1).reshape(x.shape))


def strided_pooling(model: nn.Module) -> nn.Module:
    broken = copy.deepcopy(model)
    for module in broken.modules():
        if isinstance(module, BlurPool):
            module.kernel = torch.zeros_like(module.kernel)
            module.kernel[..., 1, 1] = 1
    return broken


def four_bits(model: nn.Module) -> nn.Module:
    broken = copy.deepcopy(model)
    with torch.no_grad():
        for weight in broken.parameters():
            scale = weight.abs().max() / 7
            weight.copy_((weight / scale).round() * scale)
    return broken


def failed(report: AuditReport) -> set[str]:
    return {check.name for check in report.failures}


def test_a_good_export_passes_every_line(report: AuditReport) -> None:
    assert report.passed, report.failures
    assert report.exit_code == 0
    assert report.parity is not None
    assert report.parity.max_relative < 1e-4
    assert report.parity.top1_agreement == 1
    names = {check.name for check in report.checks}
    assert {"parity.max_relative", "difference.eq_t", "difference.lee", "batch.max_relative",
            "optimization.max_relative", "repeat.max_absolute"} <= names  # fmt: skip


# Which lines catch what. Thresholds are the defaults for exports.
BROKEN: list[tuple[Callable[[nn.Module], nn.Module], set[str]]] = [
    (wrong_normalisation, {"parity.max_relative", "difference.group_sample", "difference.eq_t"}),
    (swapped_channels, {"parity.max_relative", "parity.top1_agreement", "difference.eq_r"}),
    (misread_layout, {"parity.max_relative", "parity.top1_agreement", "parity.top5_agreement",
                      "difference.consistency"}),
    (strided_pooling, {"parity.max_relative", "difference.eq_t", "difference.eq_t_frac",
                       "difference.changed_by_shift"}),
    (four_bits, {"parity.max_relative", "difference.group_sample"}),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "lines"), BROKEN, ids=[d.__name__ for d, _ in BROKEN])
def test_a_bad_deployment_fails_by_name(
    model: nn.Module,
    tmp_path: Path,
    damage: Callable[[nn.Module], nn.Module],
    lines: set[str],
) -> None:
    path = export(damage(model).eval(), IMAGES[:2], tmp_path / "bad.onnx")
    found = look(path, model)
    assert lines <= failed(found)
    assert found.exit_code == 1
    assert {"repeat.max_absolute", "batch.max_relative"}.isdisjoint(failed(found))


def test_weights_cast_to_float16_fail_by_name(model: nn.Module, tmp_path: Path) -> None:
    exact = copy.deepcopy(model)  # the embedded weights are stored as float16
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in exact.parameters():
            weight.mul_(1 + 0.01 * torch.randn(weight.shape, generator=generator))
    files = [
        export(m, IMAGES[:2], tmp_path / name)
        for m, name in ((exact, "good.onnx"), (copy.deepcopy(exact).half().float(), "half.onnx"))
    ]
    assert look(files[0], exact).passed
    assert failed(look(files[1], exact)) == {"parity.max_relative"}


def test_static_int8_fails_as_an_export_and_is_named_quantised(good: Path, tmp_path: Path) -> None:
    path = quantize(good, tmp_path / "int8.onnx", "static", IMAGES)
    found = look(path, good)
    assert "parity.max_relative" in failed(found)
    assert found.identity is not None
    assert "static" in json.dumps(found.identity["quantisation"])


def test_dynamic_int8_runs_one_image_at_a_time(good: Path, tmp_path: Path) -> None:
    path = quantize(good, tmp_path / "int8.onnx", "dynamic")
    found = look(path, good)
    assert "parity.max_relative" in failed(found)
    assert "batch.max_relative" not in failed(found)


def test_metrics_equal_pytorchs(report: AuditReport) -> None:
    table = report.comparison
    rates = table["metric"].isin(["consistency", "changed_by_shift", "changed_by_rotation"])
    assert (table.loc[rates, "difference"] == 0).all()
    sampled = ~rates & (table["metric"] != "lee")
    assert table.loc[sampled, "relative"].abs().max() < 1e-4


def test_lee_by_differences_lies_within_its_error_of_the_exact_one(
    report: AuditReport, model: nn.Module
) -> None:
    exact = LocalEquivarianceError(model).score(IMAGES, GROUPS).double().mean(0)
    rows = report.comparison[report.comparison["metric"] == "lee"].set_index("variant")
    assert rows.loc[GROUPS, "reference"].to_numpy() == pytest.approx(exact.numpy(), rel=1e-5)
    assert (rows["difference"].abs() <= rows["error_bar"]).all()
    assert set(rows["method"]) == {"finite differences"}


def test_the_derivative_graph_makes_lee_exact(model: nn.Module, good: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(good.read_bytes())
    export_lie_derivative(model, ["rotation"], IMAGES[:2], tmp_path / "model.lie.onnx")
    found = look(path, model)
    rows = found.comparison[found.comparison["metric"] == "lee"].set_index("variant")
    assert rows.loc["rotation", "method"] == "exact"
    assert rows.loc["translation_x", "method"] == "finite differences"
    assert rows["relative"].abs()["rotation"] < 1e-4
    assert found.passed
    names = [check.name for check in found.checks]
    assert "derivative.max_absolute" in names


def test_a_derivative_of_another_model_is_noticed(
    model: nn.Module, good: Path, tmp_path: Path
) -> None:
    other = export_lie_derivative(
        strided_pooling(model), ["rotation"], IMAGES[:2], tmp_path / "other.lie.onnx"
    )
    found = look(good, model, derivative=other)
    assert "derivative.max_absolute" in failed(found)


def test_without_a_reference_all_but_parity_runs(good: Path) -> None:
    found = look(good)
    assert found.parity is None
    assert found.reference is None
    assert not any(c.name.startswith(("parity", "difference")) for c in found.checks)
    assert {"eq_t", "consistency", "lee", "changed_by_rotation"} <= set(found.comparison["metric"])
    assert found.passed


def test_limits_on_the_models_own_numbers(good: Path) -> None:
    assert look(good, thresholds={"value.consistency": 0.0}).exit_code == 1
    assert look(good, thresholds={"value.consistency": 1.0}).exit_code == 0


def test_a_saved_report_serves_as_reference(
    report: AuditReport, good: Path, tmp_path: Path
) -> None:
    files = {path.name: path for path in report.save(tmp_path / "first")}
    again = look(good, files["audit.json"])
    assert again.passed
    assert again.parity is not None
    assert again.parity.max_absolute == 0
    saved = read_behaviour(files["audit.json"])
    assert np.array_equal(saved.outputs, report.candidate.outputs)
    with pytest.raises(ValueError, match="other images"):
        audit(good, IMAGES[:5], files["audit.json"], groups=GROUPS, n_samples=3)
    with pytest.raises(ValueError, match="same metrics and groups"):
        look(good, files["audit.json"], groups=["scale"])
    (tmp_path / "none.json").write_text("{}")
    with pytest.raises(ValueError, match="no audit report"):
        look(good, tmp_path / "none.json")


def test_two_audits_give_the_same_json_but_for_the_time(report: AuditReport, good: Path,
                                                        model: nn.Module) -> None:  # fmt: skip
    first, second = (json.loads(r.to_json()) for r in (report, look(good, model)))
    assert first.pop("timestamp")
    assert second.pop("timestamp")
    assert first == second
    assert first["schema"] == "captum-lie-audit/1"


def test_another_seed_samples_other_transformations(report: AuditReport, good: Path,
                                                    model: nn.Module) -> None:  # fmt: skip
    other = look(good, model, seed=1)
    first, second = (
        r.comparison.set_index(["metric", "variant"])["candidate"] for r in (report, other)
    )
    assert first.xs("eq_t").iloc[0] != second.xs("eq_t").iloc[0]
    assert first.loc["lee", "rotation"] == second.loc["lee", "rotation"]


def test_junit_has_a_case_per_line(model: nn.Module, tmp_path: Path) -> None:
    path = export(strided_pooling(model), IMAGES[:2], tmp_path / "bad.onnx")
    found = look(path, model)
    files = {p.name: p for p in found.save(tmp_path / "report")}
    root = ElementTree.parse(files["junit.xml"]).getroot()
    assert len(root.findall(".//testcase")) == len(found.checks)
    failures = root.findall(".//testcase/failure")
    assert len(failures) == len(found.failures) > 0
    assert "should be at most" in failures[0].attrib["message"]
    page = files["audit.html"].read_text()
    assert "Failed" in page
    assert "difference.eq_t" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page


def test_nothing_is_written_where_a_page_fails(
    report: AuditReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> str:
        raise OSError("No space left on device")

    monkeypatch.setattr("captum_lie_onnx.audit_report.render_junit", full)
    with pytest.raises(OSError, match="space"):
        report.save(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_images_must_be_plain(good: Path, model: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        audit(good, IMAGES * 4 - 2, model)
    with pytest.raises(ValueError, match="metric"):
        look(good, model, metrics=["speed"])


def test_unreadable_images_are_named_and_too_many_refused(tmp_path: Path) -> None:
    from PIL import Image

    for i in range(9):
        pixels = (IMAGES[i].permute(1, 2, 0) * 255).round().byte().numpy()
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    found = read_images(tmp_path)
    assert len(found.images) == 9
    assert list(found.skipped) == ["broken.png"]
    with pytest.raises(ValueError, match=r"1 of 10 images.*broken\.png"):
        read_images(tmp_path, max_unreadable=0.05)


def test_a_report_can_be_pickled(report: AuditReport) -> None:
    assert pickle.loads(pickle.dumps(report)).passed
