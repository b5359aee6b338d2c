"""Broken and hostile files: one clear line, and a parent that lives on with no child left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("onnxruntime")

import onnx
from onnx import TensorProto, helper
from typer.testing import CliRunner

from captum_lie.cli.application import app
from captum_lie_onnx import (
    Limits,
    OnnxModel,
    OnnxModelError,
    Preprocessing,
    audit,
    inspect,
    quantize,
)
from captum_lie_onnx.isolation import IsolatedSession
from captum_lie_onnx.metadata import Metadata
from tests.onnx import toy_graphs as toy
from tests.onnx.processes import children

LIMITS = Limits(memory=2**30, load_seconds=20, run_seconds=20)
IMAGES = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _no_child_is_left() -> Iterator[None]:
    before = children()
    yield
    assert children() <= before


def truncated(path: Path) -> Path:
    content = toy.good(path).read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def random_bytes(path: Path) -> Path:
    path.write_bytes(np.random.default_rng(0).bytes(4096))
    return path


def nothing(path: Path) -> Path:
    path.write_bytes(b"")
    return path


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def empty_graph(path: Path) -> Path:
    return toy.save(path, [])


def no_input(path: Path) -> Path:
    nodes, weights = toy.means("images")
    return toy.save(
        path, nodes, inputs=[], initializers=[*weights, toy.tensor("images", IMAGES.numpy())]
    )


def two_inputs(path: Path) -> Path:
    inputs = [toy.value("images", ["n", 3, 8, 8]), toy.value("mask", ["n", 3, 8, 8])]
    return toy.good(path, inputs=inputs)


def no_pixels(path: Path) -> Path:
    return toy.good(path, inputs=[toy.value("images", ["n", 3, 0, 8])])


def integer_input(path: Path) -> Path:
    return toy.scaled(path, TensorProto.INT64, ["n", 3, 8, 8], (2, 3))


def flat_input(path: Path) -> Path:
    return toy.good(path, inputs=[toy.value("images", ["n", 192])])


def custom_operator(path: Path) -> Path:
    nodes, weights = toy.means("moved")
    node = helper.make_node("Spy", ["images"], ["moved"], domain="evil.ops")
    return toy.save(path, [node, *nodes], initializers=weights, domains=["evil.ops"])


def custom_operator_in_a_branch(path: Path) -> Path:
    nodes, weights = toy.means()
    body = helper.make_graph(
        [helper.make_node("Spy", ["images"], ["y"], domain="evil.ops")],
        "body", [], [toy.value("y", ["n", 3, 8, 8])],
    )  # fmt: skip
    branch = helper.make_node("If", ["yes"], ["z"], then_branch=body, else_branch=body)
    yes = toy.tensor("yes", True, np.bool_)
    return toy.save(path, [branch, *nodes], initializers=[*weights, yes], domains=["evil.ops"])


def custom_operator_in_a_function(path: Path) -> Path:
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("evil.ops", 1)]
    body = [helper.make_node("Spy", ["x"], ["y"], domain="evil.ops")]
    function = helper.make_function("own", "f", ["x"], ["y"], body, opsets)
    nodes, weights = toy.means("moved")
    call = helper.make_node("f", ["images"], ["moved"], domain="own")
    return toy.save(path, [call, *nodes], initializers=weights, functions=[function],
                    domains=["own", "evil.ops"])  # fmt: skip


def declared_too_large(path: Path) -> Path:
    model = toy.parsed(toy.good(path))
    model.graph.initializer.append(
        TensorProto(name="huge", data_type=TensorProto.FLOAT, dims=[2**20, 2**20])
    )
    path.write_bytes(model.SerializeToString())
    return path


def less_than_declared(path: Path) -> Path:
    model = toy.parsed(toy.good(path))
    model.graph.initializer.append(
        TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[100], raw_data=b"1234")
    )
    path.write_bytes(model.SerializeToString())
    return path


def negative_size(path: Path) -> Path:
    model = toy.parsed(toy.good(path))
    model.graph.initializer.append(
        TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[-4, -4])
    )
    path.write_bytes(model.SerializeToString())
    return path


def constant_of_shape(path: Path) -> Path:
    return toy.bomb(path, [2**31])


def deeply_nested(path: Path) -> Path:
    path.write_bytes(toy.nested(3000))
    return path


def outside_absolute(path: Path) -> Path:
    return toy.external(path, "/etc/passwd")


def outside_upwards(path: Path) -> Path:
    return toy.external(path, "../weights.bin")


def outside_by_link(path: Path) -> Path:
    (path.parent / "weights.bin").symlink_to("/etc/passwd")
    return toy.external(path, "weights.bin")


def missing_sidecar(path: Path) -> Path:
    return toy.external(path, "weights.bin")


def short_sidecar(path: Path) -> Path:
    (path.parent / "weights.bin").write_bytes(b"1234")
    return toy.external(path, "weights.bin")


CASES: list[tuple[Callable[[Path], Path], str]] = [
    (lambda path: path, "no model file"),
    (folder, "is no file"),
    (nothing, "is empty"),
    (truncated, "truncated"),
    (random_bytes, "no ONNX file"),
    (empty_graph, "graph is empty"),
    (no_input, "exactly one input, images; it has 0"),
    (two_inputs, "exactly one input, images; it has 2"),
    (integer_input, "float or uint8; it takes int64"),
    (flat_input, "rank 4"),
    (no_pixels, "which no image has"),
    (custom_operator, r"Spy of the domain 'evil\.ops'"),
    (custom_operator_in_a_branch, r"Spy of the domain 'evil\.ops'"),
    (custom_operator_in_a_function, r"Spy of the domain 'evil\.ops'"),
    (declared_too_large, "'huge' declares 4398046511104 bytes"),
    (less_than_declared, "declares 400 bytes but holds 4"),
    (negative_size, "negative size"),
    (constant_of_shape, "ConstantOfShape makes a tensor of 2147483648 elements"),
    (deeply_nested, "nested too deeply"),
    (outside_absolute, "outside the model's folder: '/etc/passwd'"),
    (outside_upwards, r"outside the model's folder: '\.\./weights\.bin'"),
    (outside_by_link, r"outside the model's folder: 'weights\.bin'"),
    (missing_sidecar, r"'weights\.bin' is missing"),
    (short_sidecar, r"'weights\.bin' is too short: 'bias' needs 12 bytes from 0, the file has 4"),
]
NAMES = ["missing", *(make.__name__ for make, _ in CASES[1:])]


@pytest.mark.parametrize(("make", "reason"), CASES, ids=NAMES)
def test_every_broken_or_hostile_file_is_refused_with_its_reason(
    tmp_path: Path, make: Callable[[Path], Path], reason: str
) -> None:
    path = make(tmp_path / "model.onnx")
    with pytest.raises(OnnxModelError, match=reason):
        inspect(path, LIMITS)
    with pytest.raises(OnnxModelError, match=reason):
        OnnxModel(path, limits=LIMITS)


@pytest.mark.parametrize("make", [truncated, two_inputs, constant_of_shape, missing_sidecar])
def test_the_command_line_says_one_line_and_writes_nothing(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    path = make(tmp_path / "model.onnx")
    arguments = ["audit", str(path), "--out", str(tmp_path / "out"), "--memory", "1"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2, result.output
    assert result.output.count("Error:") == 1
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


def test_a_domain_can_be_allowed_by_name(tmp_path: Path) -> None:
    path = custom_operator(tmp_path / "model.onnx")
    allowed = Limits(memory=2**30, allowed_domains=("evil.ops",))
    assert "evil.ops" in inspect(path, allowed).domains
    with pytest.raises(OnnxModelError, match="loading it"):  # its library is not loaded
        OnnxModel(path, limits=allowed)


def test_functions_of_the_files_own_are_no_custom_operators(tmp_path: Path) -> None:
    path = toy.doubling(tmp_path / "model.onnx", 3)
    with OnnxModel(path, limits=LIMITS) as model:
        assert torch.allclose(model(IMAGES), IMAGES.mean((2, 3)), atol=1e-6)


def test_files_over_the_cap_are_not_opened(tmp_path: Path) -> None:
    path = toy.good(tmp_path / "model.onnx")
    with pytest.raises(OnnxModelError, match="more than the 10 allowed"):
        inspect(path, Limits(file_bytes=10))
    (tmp_path / "weights.bin").write_bytes(b"\0" * 4096)
    path = toy.external(path, "weights.bin")
    with pytest.raises(OnnxModelError, match="with its external data"):
        inspect(path, Limits(file_bytes=2048))


def test_memory_that_only_shows_when_running_is_limited(tmp_path: Path) -> None:
    path = toy.bomb(tmp_path / "model.onnx", [2**31], computed=True)
    assert path.stat().st_size < 1000
    before = _resident()
    with (
        OnnxModel(path, limits=LIMITS) as model,
        pytest.raises(OnnxModelError, match=r"more memory than the 1 GiB"),
    ):
        model(IMAGES[:1])
    assert _resident() - before < 2**28


def test_time_to_load_is_limited(tmp_path: Path) -> None:
    session = IsolatedSession(toy.good(tmp_path / "model.onnx"), Limits(load_seconds=0.1))
    os.kill(session._process.pid, signal.SIGSTOP)  # it cannot answer, however fast the machine
    with pytest.raises(OnnxModelError, match=r"loading it took more than the 0\.1 s allowed\."):
        session.load(1, "all")
    with pytest.raises(OnnxModelError, match="has ended"):
        session.load(1, "all")


def test_time_is_limited_over_all_calls(tmp_path: Path) -> None:
    model = OnnxModel(toy.good(tmp_path / "model.onnx"), limits=Limits(total_seconds=3600))
    engine = model._file.engine
    assert isinstance(engine, IsolatedSession)
    model(IMAGES)
    assert 0 < engine._spent < 3600
    engine._spent = 3600.0
    os.kill(engine._process.pid, signal.SIGSTOP)
    with pytest.raises(OnnxModelError, match="running it took more than the 3600 s allowed in all"):
        model(IMAGES)


def test_memory_means_what_a_process_takes_beyond_its_start(tmp_path: Path) -> None:
    script = (
        "import numpy; from captum_lie_onnx.child.memory import limit_memory; limit_memory(2**28)\n"
        "bytearray(2**27)\n"
        "try: bytearray(2**29)\n"
        "except MemoryError: print('held')"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "held\n"
    # Less than onnxruntime takes by itself: both child processes start and do their work.
    small, path = Limits(memory=2**28), toy.good(tmp_path / "model.onnx")
    made = quantize(path, tmp_path / "int8.onnx", "static", IMAGES, limits=small)
    with OnnxModel(made, limits=small, threads=1) as model:
        assert model(IMAGES).shape == (3, 3)


@pytest.mark.parametrize("size", [2**31, 2**62])
@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_a_huge_declared_size_is_refused(tmp_path: Path, axis: int, size: int) -> None:
    shape: list[int | str] = ["n", 3, 8, 8]
    shape[axis] = size
    path = toy.good(tmp_path / "model.onnx", inputs=[toy.value("images", shape)])
    with pytest.raises(OnnxModelError, match=rf"declares .*{size}.* bytes a batch, more than"):
        inspect(path, LIMITS)


@pytest.mark.parametrize("declared", ["shape", "metadata"])
def test_images_are_not_resized_to_what_does_not_fit(
    tmp_path: Path, declared: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resize(*_: object, **__: object) -> None:
        pytest.fail("the images were resized")

    monkeypatch.setattr(torch.nn.functional, "interpolate", resize)
    side: int | str = 2**12 if declared == "shape" else "side"  # one image does fit
    path = toy.good(tmp_path / "model.onnx", inputs=[toy.value("images", ["n", 3, side, side])])
    if declared == "metadata":
        model = toy.parsed(path)
        toy.add_metadata(model, Metadata(Preprocessing(size=(2**62, 2**31)), 3, "toy", "0"))
        path.write_bytes(model.SerializeToString())
    result = CliRunner().invoke(app, ["audit", str(path), "--out", str(tmp_path / "out")])
    assert result.exit_code == 2, result.output
    assert result.output.count("Error:") == 1
    assert "the copies that measuring makes need more than the 4 GiB" in result.output
    assert not (tmp_path / "out").exists()


def test_text_that_is_none_is_refused(tmp_path: Path) -> None:
    path = toy.good(tmp_path / "model.onnx")
    path.write_bytes(path.read_bytes().replace(b"images", b"im\xff\xfees"))
    with pytest.raises(OnnxModelError, match="no text"):
        inspect(path, LIMITS)


def test_outputs_that_are_no_numbers_are_an_error(tmp_path: Path) -> None:
    node = helper.make_node("SequenceConstruct", ["images"], ["scores"])
    output = helper.make_tensor_sequence_value_info("scores", TensorProto.FLOAT, None)
    path = toy.save(tmp_path / "model.onnx", [node], outputs=[output])
    text = helper.make_node("Cast", ["images"], ["scores"], to=TensorProto.STRING)
    words = toy.value("scores", ["n", 3, 8, 8], TensorProto.STRING)
    other = toy.save(tmp_path / "words.onnx", [text], outputs=[words])
    for file in (path, other):
        for limits in (LIMITS, None):
            with (
                OnnxModel(file, limits=limits) as model,
                pytest.raises(OnnxModelError, match=r"tensor of numbers|one row"),
            ):
                model(IMAGES)


def test_a_child_that_dies_is_explained(tmp_path: Path) -> None:
    model = OnnxModel(toy.good(tmp_path / "model.onnx"), limits=LIMITS)
    assert isinstance(model._file.engine, IsolatedSession)
    os.kill(model._file.engine._process.pid, signal.SIGKILL)
    with pytest.raises(OnnxModelError, match="died while running it"):
        model(IMAGES)
    with pytest.raises(OnnxModelError, match="open it again"):
        model(IMAGES)


def test_children_end_with_their_models(tmp_path: Path) -> None:
    path = toy.good(tmp_path / "model.onnx")
    before = children()
    model = OnnxModel(path, limits=LIMITS)
    assert len(children() - before) == 1
    del model
    assert children() <= before


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_scores_that_are_no_numbers_are_an_error(tmp_path: Path, number: float) -> None:
    nodes, weights = toy.means()
    nodes[0].output[0] = "mean"
    add = helper.make_node("Add", ["mean", "odd"], ["scores"])
    path = toy.save(
        tmp_path / "model.onnx", [*nodes, add], initializers=[*weights, toy.tensor("odd", number)]
    )
    with pytest.raises(ValueError, match="NaN or infinite"):
        audit(path, IMAGES, groups=["brightness"], metrics=[], limits=LIMITS)


def test_one_row_for_each_image_is_required(tmp_path: Path) -> None:
    nodes, weights = toy.means(axes=(0, 2, 3))
    path = toy.save(
        tmp_path / "model.onnx", nodes, initializers=weights, outputs=[toy.value("scores", [3])]
    )
    with OnnxModel(path, limits=LIMITS) as model, pytest.raises(OnnxModelError, match="one row"):
        model(IMAGES[:2])


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_the_toys_are_what_they_say(tmp_path: Path) -> None:
    onnx.checker.check_model(toy.parsed(toy.good(tmp_path / "good.onnx")), full_check=True)
    assert len(toy.nested(3000)) < 200_000
