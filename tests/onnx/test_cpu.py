"""What a CPU can do, and what follows for int8: reduced range, and the line on saturation."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("onnxruntime")

from onnx import TensorProto, numpy_helper

from captum_lie_onnx import AuditReport, Limits, OnnxModel, audit, inspect, quantisation, quantize
from captum_lie_onnx.child.messages import Array
from captum_lie_onnx.child.session import Session
from captum_lie_onnx.cpu import Capabilities, read_capabilities, this_cpu
from captum_lie_onnx.isolation import IsolatedSession, IsolatedVariant
from captum_lie_onnx.self_checks import saturation
from captum_lie_onnx.thresholds import EXPORT, QUANTIZED, Check
from tests.onnx import toy_graphs as toy

HASWELL = Capabilities("x86_64", "old", avx2=True, avx512=False, vnni=False, amx_int8=False)
ICE_LAKE = Capabilities("x86_64", "new", avx2=True, avx512=True, vnni=True, amx_int8=False)
GRAVITON = read_capabilities("aarch64", "Features : fp asimd i8mm\n")
UNKNOWN = Capabilities("AMD64")
IMAGES = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))

FLAGS = {
    "avx2": "fpu sse4_1 avx avx2",
    "avx512": "fpu avx2 avx512f avx512bw",
    "avx512_vnni": "fpu avx2 avx512f avx512_vnni",
    "avx_vnni": "fpu avx2 avx_vnni",
    "amx": "fpu avx2 avx512f avx512_vnni amx_tile amx_int8",
}


@pytest.mark.parametrize(
    ("flags", "found", "saturates"),
    [
        ("avx2", (True, False, False, False), True),
        ("avx512", (True, True, False, False), True),
        ("avx512_vnni", (True, True, True, False), False),
        ("avx_vnni", (True, False, True, False), False),
        ("amx", (True, True, True, True), False),
    ],
)
def test_capabilities_of_x86(
    flags: str, found: tuple[bool, bool, bool, bool], saturates: bool
) -> None:
    one = f"processor\t: 0\nmodel name\t: A CPU @ 2 GHz\nflags\t\t: {FLAGS[flags]}\n\n"
    cpu = read_capabilities("x86_64", one * 2)
    assert (cpu.avx2, cpu.avx512, cpu.vnni, cpu.amx_int8) == found
    assert cpu.model == "A CPU @ 2 GHz"
    assert cpu.saturates is saturates


def test_what_is_not_known_is_not_guessed() -> None:
    bare = read_capabilities("x86_64", "", "i386")
    assert (bare.avx2, bare.avx512, bare.vnni, bare.amx_int8) == (None,) * 4
    assert bare.saturates is UNKNOWN.saturates is None
    assert "unknown" in bare.describe()
    assert GRAVITON.saturates is False
    assert GRAVITON.describe() == "unknown (aarch64)"
    assert HASWELL.describe() == "old (x86_64, AVX2, no AVX512 VNNI AMX)"


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="no /proc/cpuinfo")
def test_this_cpu_is_as_torch_sees_it() -> None:
    cpu = this_cpu()
    assert cpu.architecture == platform.machine()
    seen = torch.backends.cpu.get_cpu_capability()
    assert {"AVX2": cpu.avx2, "AVX512": cpu.avx512}.get(seen, True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return toy.network(tmp_path / "model.onnx")


def largest_weight(path: Path) -> int:
    """Distance of the integer weights from their zero."""
    tensors = {t.name: numpy_helper.to_array(t) for t in toy.parsed(path).graph.initializer}
    (name,) = (n for n in tensors if n.endswith("w_quantized"))
    zero = tensors[name.removesuffix("quantized") + "zero_point"].astype(int)
    return int(np.abs(tensors[name].astype(int) - zero.reshape(-1, *[1] * 3)).max())


@pytest.mark.parametrize(
    ("choice", "cpu", "reduced"),
    [
        ("auto", HASWELL, True),
        ("auto", ICE_LAKE, False),
        ("auto", GRAVITON, False),
        ("auto", UNKNOWN, False),
        (True, ICE_LAKE, True),
        (False, HASWELL, False),
    ],
)
def test_the_range_is_reduced_where_it_must_be(
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    choice: bool,
    cpu: Capabilities,
    reduced: bool,
) -> None:
    monkeypatch.setattr(quantisation, "this_cpu", lambda: cpu)
    made = quantize(path, path.with_name("int8.onnx"), "static", IMAGES, reduce_range=choice)
    assert largest_weight(made) == (64 if reduced else 127)
    assert f'"reduce_range": {str(reduced).lower()}' in str(inspect(made).metadata)


def test_unsigned_weights_need_no_reduced_range(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantisation, "this_cpu", lambda: HASWELL)
    made = quantize(path, path.with_name("int8.onnx"), "dynamic")
    kinds = {t.data_type for t in toy.parsed(made).graph.initializer if "quantized" in t.name}
    assert kinds == {TensorProto.UINT8}
    assert '"reduce_range": false' in str(inspect(made).metadata)


def test_static_int8_is_close_on_every_cpu(path: Path) -> None:
    """Without VNNI the full range is 0.17 off; 0.006 computed precisely, 0.05 in reduced range."""
    exact = OnnxModel(path)(IMAGES)
    for choice in (True, False):
        made = quantize(path, path.with_name("int8.onnx"), "static", IMAGES, reduce_range=choice)
        model = OnnxModel(made)
        with model.precise():
            assert (model(IMAGES) - exact).abs().max() < 0.1
        if choice:
            assert (model(IMAGES) - exact).abs().max() < 0.1
    made = quantize(path, path.with_name("int8.onnx"), "static", IMAGES)  # by this CPU
    assert (OnnxModel(made)(IMAGES) - exact).abs().max() < 0.1


@pytest.mark.parametrize("limits", [None, Limits()])
def test_precise_is_a_session_of_its_own(
    path: Path, limits: Limits | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with OnnxModel(path, threads=1, limits=limits) as model:
        first = model._file.engine
        with model.precise():
            assert model._file.engine is not first
            within = model(IMAGES)
        assert model._file.engine is first
        assert torch.equal(model(IMAGES), within)  # floats do not saturate
    for precise in (False, True):
        options = Session(str(path), 1, "all", precise)._session.get_session_options()
        found = options.get_session_config_entry("session.x64quantprecision")
        assert found == str(int(precise))


def line(found: list[Check]) -> Check:
    (only,) = found
    assert only.name == "saturation.max_relative"
    return only


@pytest.mark.parametrize(
    ("difference", "cpu", "status"),
    [
        (0.5, HASWELL, "fail"),
        (0.0, HASWELL, "pass"),
        (0.005, HASWELL, "pass"),
        (0.0, ICE_LAKE, "inconclusive"),
        (0.0, GRAVITON, "inconclusive"),
        (0.0, UNKNOWN, "inconclusive"),
        (0.5, UNKNOWN, "fail"),
    ],
)
def test_the_verdict_on_saturation(difference: float, cpu: Capabilities, status: str) -> None:
    found = line(saturation(difference, cpu, QUANTIZED))
    assert found.status == status
    assert ("cannot show" in found.detail) == (status == "inconclusive")
    assert saturation(difference, cpu, {}) == []
    assert EXPORT["saturation.max_relative"] < QUANTIZED["saturation.max_relative"]


def look(path: Path) -> AuditReport:
    return audit(path, IMAGES, groups=["brightness"], metrics=[], thresholds=QUANTIZED, threads=1)


def test_an_audit_of_int8_has_a_line_on_saturation(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "saturation.max_relative" not in {c.name for c in look(path).checks}
    made = quantize(path, path.with_name("int8.onnx"), "static", IMAGES, reduce_range=True)
    report = look(made)
    found = line([c for c in report.checks if c.name.startswith("saturation")])
    assert found.value == 0
    assert found.status == ("pass" if this_cpu().saturates else "inconclusive")
    assert report.settings["cpu"] == this_cpu().to_dict()

    class Saturated(IsolatedVariant):
        def run(self, name: str, value: Array, outputs: list[str]) -> list[Array]:
            return [2 * array for array in super().run(name, value, outputs)]

    def reloaded(self: IsolatedSession, optimization: str, precise: bool = False) -> object:
        kind = Saturated if precise else IsolatedVariant
        self._load(optimization, optimization, precise)
        return kind(self, optimization)

    monkeypatch.setattr(IsolatedSession, "reloaded", reloaded)
    found = line([c for c in look(made).checks if c.name.startswith("saturation")])
    assert found.status == "fail"
    assert found.value == pytest.approx(1)
    assert "reduce_range" in found.detail
