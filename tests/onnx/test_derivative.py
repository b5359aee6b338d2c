"""The Lie derivative as an ONNX graph equals the exact one, at any batch size."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from captum_lie import LocalEquivarianceError, Rotation, Translation, lie_derivative
from captum_lie.examples import load_images, load_model
from captum_lie.examples.models import mixer, vit
from captum_lie.groups import GROUP_NAMES, Affine, Brightness, OneParameterGroup, get_groups
from captum_lie.preprocessing import Normalized
from captum_lie_onnx import (
    LieDerivativeModel,
    OnnxModelError,
    derivative_export,
    derivative_parity,
    export,
    export_lie_derivative,
    jets,
    tracing,
)
from captum_lie_onnx.limits import Limits
from captum_lie_onnx.metadata import Preprocessing, read
from tests.onnx import toy_graphs as toy
from tests.toy_models import ReverseOnly

IMAGES = load_images(7)[0]
TOLERANCE = 1e-4


def small(name: str) -> nn.Module:
    """One block of an example architecture, untrained; all of the trained convolutional net."""
    if name == "cnn":
        return load_model(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return {"vit": vit, "mixer": mixer}[name](8, depth=1).eval()


def probabilities(model: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda x: model(x).softmax(-1)


def run(path: Path, images: Tensor) -> tuple[Tensor, Tensor]:
    scores, along = toy.run(path, images, "scores", "derivative")
    return scores, along


def assert_exact(found: Tensor, model: nn.Module, images: Tensor, groups: Any = "all") -> None:
    """Each group to the tolerance, relative to its own largest derivative. ``[N, G, K]``."""
    exact = lie_derivative(probabilities(model), images, groups).transpose(0, 1)
    assert found.shape == exact.shape
    largest = exact.abs().amax((0, 2))
    assert (largest > 0).all()
    assert ((found - exact).abs().amax((0, 2)) <= TOLERANCE * largest).all()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Derivatives under every group, by model."""
    folder = tmp_path_factory.mktemp("derivatives")
    made: dict[str, Path] = {}

    def path(name: str) -> Path:
        if name not in made:
            made[name] = export_lie_derivative(
                small(name), "all", IMAGES[:1], folder / f"{name}.lie.onnx"
            )
        return made[name]

    return path


@pytest.mark.parametrize("name", ["cnn", "vit", "mixer"])
@pytest.mark.parametrize("n", [1, 2, 7])
def test_every_group_at_any_batch_size(exported: Callable[[str], Path], name: str, n: int) -> None:
    model = small(name)
    scores, found = run(exported(name), IMAGES[:n])
    assert_exact(found, model, IMAGES[:n])
    with torch.no_grad():
        assert torch.allclose(scores, probabilities(model)(IMAGES[:n]), atol=1e-6)


@pytest.mark.parametrize("name", ["cnn", "vit", "mixer"])
def test_the_graph_is_no_larger_than_it_must_be(exported: Callable[[str], Path], name: str) -> None:
    graph = onnx.load(str(exported(name))).graph
    weights = sum(onnx.numpy_helper.to_array(t).nbytes for t in graph.initializer)
    own = sum(p.nbytes for p in small(name).state_dict().values())
    fields = 12 * 4 * 32 * 32  # velocity along either axis of six basis fields
    assert weights <= 1.1 * own + fields + 10_000  # and no second copy, nor zeros, of the model's


def test_the_model_says_what_it_is(exported: Callable[[str], Path]) -> None:
    found = LieDerivativeModel(exported("cnn"), threads=1)
    assert found.fixed_batch is None
    assert found.groups == get_groups(GROUP_NAMES)
    assert not found.single
    scores = torch.randn(2, 8)
    assert torch.equal(found.output_fn(scores), scores.softmax(-1))
    metadata = read({p.key: p.value for p in onnx.load(str(exported("cnn"))).metadata_props})
    assert metadata is not None
    assert metadata.preprocessing == Preprocessing((32, 32))
    assert metadata.num_classes == 8


def test_lee_from_the_graph(exported: Callable[[str], Path]) -> None:
    expected = LocalEquivarianceError(small("cnn")).score(IMAGES, GROUP_NAMES)
    with LieDerivativeModel(
        exported("cnn"), threads=1, limits=Limits()
    ) as found:  # a child process
        assert torch.allclose(found.lee(IMAGES).float(), expected, rtol=1e-3)


@pytest.mark.parametrize(("interpolation", "border"), [("central", "circular"), ("fourier", None)])
def test_other_rules_on_images_that_are_not_square(
    tmp_path: Path, interpolation: Any, border: Any
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    groups = get_groups("all", interpolation=interpolation, border=border)
    images = torch.rand(3, 3, 14, 21)
    path = export_lie_derivative(model.eval(), groups, images, tmp_path / "lie.onnx")
    assert_exact(run(path, images)[1], model, images, groups)
    assert LieDerivativeModel(path, threads=1).groups == groups


def test_one_group_of_plain_scores(tmp_path: Path) -> None:
    model = load_model("cnn_blur")
    path = export_lie_derivative(
        model, Rotation(), IMAGES[:2], tmp_path / "lie.onnx", output_fn=None
    )
    found = LieDerivativeModel(path, threads=1)
    scores, along = found(IMAGES)
    exact = lie_derivative(model, IMAGES, "rotation")
    assert along.shape == exact.shape == (7, 8)
    assert (along - exact).abs().max() <= TOLERANCE * exact.abs().max()
    assert torch.allclose(scores, model(IMAGES).detach(), atol=1e-4)
    assert found.single
    assert found.groups == [Rotation()]
    assert torch.equal(found.output_fn(scores), scores)
    assert found.lee(IMAGES).shape == (7, 1)
    assert torch.allclose(found.lee(IMAGES)[:, 0].float(), exact.square().mean(1), rtol=1e-3)


def test_groups_of_ones_own(tmp_path: Path) -> None:
    class Diagonal(Translation):
        @property
        def name(self) -> str:
            return "diagonal"

        @property
        def direction(self) -> Any:
            return (1, 1, 0, 0, 0, 0)

    model = small("cnn")
    groups = [Diagonal(), Affine((1, 0, 0, 0, 0.5, 0), "odd"), Brightness()]
    path = export_lie_derivative(model, groups, IMAGES[:2], tmp_path / "lie.onnx")
    assert_exact(run(path, IMAGES)[1], model, IMAGES, groups)
    found = LieDerivativeModel(path, threads=1).groups
    assert [g.name for g in found] == ["diagonal", "odd", "brightness"]
    assert found[1:] == groups[1:]

    class Gamma(OneParameterGroup):
        name = "gamma"

        def act(self, x: Tensor, t: Any) -> Tensor:
            return x ** (1 + t)

        def generator(self, x: Tensor) -> Tensor:
            return x * x.log()

    with pytest.raises(ValueError, match="cannot hold the group"):
        export_lie_derivative(model, Gamma(), IMAGES[:2], tmp_path / "other.onnx")


def test_normalisation_becomes_part_of_the_graph(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.LazyLinear(5)).eval()
    model(IMAGES)
    about = Preprocessing(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
    path = export_lie_derivative(
        model, ["brightness"], IMAGES[:2], tmp_path / "lie.onnx", preprocessing=about
    )
    assert about.mean is not None
    assert about.std is not None
    whole = Normalized(model, about.mean, about.std).eval()
    assert_exact(run(path, IMAGES)[1], whole, IMAGES, ["brightness"])
    for wrong in (Preprocessing(layout="NHWC"), Preprocessing(channels="BGR")):
        with pytest.raises(ValueError, match="RGB images"):
            export_lie_derivative(
                model, "rotation", IMAGES, tmp_path / "lie.onnx", preprocessing=wrong
            )


class InPlace(nn.Module):
    """Writes into its own values, through views, and uses one module twice."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 3, 3, padding=1)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.convolution(x))
        y[:, 1].mul_(2)
        y += 0.1 * x
        y = self.act(self.convolution(y))
        return y.flatten(2).mean(2).div_(0.5)


def test_models_that_write_in_place(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = InPlace().eval()
    path = export_lie_derivative(model, ["rotation"], IMAGES[:2], tmp_path / "lie.onnx")
    assert_exact(run(path, IMAGES)[1], model, IMAGES, ["rotation"])


class FixedPair(nn.Module):
    """Cannot be traced at more than one batch size in the same way."""

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(len(x) - 1):
            x = x * 1.0
        return x.square().mean((2, 3))


def test_single_images_where_the_batch_cannot_vary(tmp_path: Path) -> None:
    path = export_lie_derivative(FixedPair().eval(), ["scale"], IMAGES[:2], tmp_path / "lie.onnx")
    found = LieDerivativeModel(path, threads=1)
    assert found.fixed_batch == 1
    expected = torch.cat(
        [lie_derivative(probabilities(FixedPair()), x[None], ["scale"]) for x in IMAGES], dim=1
    )
    assert torch.allclose(found(IMAGES)[1], expected.transpose(0, 1), atol=1e-6)


def test_sizes_that_depend_on_the_batch_are_found() -> None:
    def function(x: Tensor) -> Tensor:
        n = len(x)
        padding = x.new_zeros(2 * n + 1, 3)
        return torch.cat([x.reshape(n * 3, -1)[:, :3], padding + 1]).sum(0).expand(n, 3)

    graph = tracing.trace_for_any_batch(function, IMAGES[:1])
    for n in (1, 2, 5, 7):
        assert torch.allclose(graph(IMAGES[:n]), function(IMAGES[:n]))
    with pytest.raises(tracing.FixedBatchError, match="argument"):
        tracing.trace_for_any_batch(lambda x: x * (1 / len(x)), IMAGES[:1])


def test_operators_without_forward_mode(tmp_path: Path) -> None:
    class Squares(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return ReverseOnly.apply(x).mean((2, 3)) * torch.tensor([1.0, 5.0, 10.0])

    class Plain(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x**2).mean((2, 3)) * torch.tensor([1.0, 5.0, 10.0])

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*without forward-mode derivative")
        path = export_lie_derivative(Squares().eval(), ["scale"], IMAGES[:2], tmp_path / "l.onnx")
    assert_exact(run(path, IMAGES)[1], Plain(), IMAGES, ["scale"])


def test_a_wrong_derivative_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = jets.jet_of

    def wrong(*args: Any, **options: Any) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        jet = right(*args, **options)

        def found(x: Tensor) -> tuple[Tensor, Tensor]:
            scores, along = jet(x)
            return scores, 1.001 * along

        return found

    monkeypatch.setattr(derivative_export, "jet_of", wrong)
    with pytest.raises(ValueError, match="Lie derivative differ"):
        export_lie_derivative(InPlace().eval(), "scale", IMAGES[:2], tmp_path / "lie.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("moved", "by", "accepted"),
    [
        ([], 0.0, True),
        ([5], 50, True),  # one image at a kink
        ([1, 5], 50, True),
        ([1, 3, 5], 50, False),  # more than one in four
        ([5], 200, False),  # no jump of rounding
        (range(8), 1.5, False),
        ([5], float("nan"), False),
    ],
)
def test_one_image_in_four_may_lie_at_a_kink(moved: Any, by: float, accepted: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    outputs, exact = torch.rand(8, 5, generator=generator), torch.rand(8, 3, 5, generator=generator)
    exact[0, 0, 0] = 1  # the largest
    found = exact.clone()
    found[list(moved), 1] += by * 1e-4

    def check(scores: Tensor, along: Tensor) -> None:
        derivative_parity.check_alike((scores, along), (outputs, exact), 1e-4)

    if accepted:
        check(outputs, found)
    else:
        with pytest.raises(ValueError, match="Lie derivative differ"):
            check(outputs, found)
    wrong = outputs.clone()
    wrong[5, 0] += 2e-4
    with pytest.raises(ValueError, match="outputs differ"):
        check(wrong, exact)


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy.fill_the_disk(monkeypatch)
    with pytest.raises(OSError, match="No space left"):
        export_lie_derivative(InPlace().eval(), "scale", IMAGES[:2], tmp_path / "lie.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("model", "group", "options", "error", "words"),
    [
        (InPlace().eval(), "rotatoin", {}, ValueError, "Did you mean 'rotation'"),
        (InPlace().eval(), [], {}, ValueError, "No group"),
        (InPlace().eval(), "scale", {"output_fn": "sigmoid"}, ValueError, "softmax"),
        (InPlace().train(), "scale", {}, ValueError, "training mode"),
        (nn.Identity().eval(), "scale", {}, ValueError, r"scores \[N, K\]"),
        (lambda x: x, "scale", {}, TypeError, "torch.nn.Module"),
    ],
)
def test_what_cannot_be_exported(
    tmp_path: Path,
    model: Any,
    group: Any,
    options: dict[str, Any],
    error: type[Exception],
    words: str,
) -> None:
    with pytest.raises(error, match=words):
        export_lie_derivative(model, group, IMAGES[:2], tmp_path / "lie.onnx", **options)
    assert list(tmp_path.iterdir()) == []


def test_an_operator_that_onnx_lacks_is_named(tmp_path: Path) -> None:
    class Bessel(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.special.i0(x).mean((2, 3))

    with pytest.raises(ValueError, match=r"no counterpart of the operator \S*i0"):
        export_lie_derivative(Bessel().eval(), "scale", IMAGES[:2], tmp_path / "lie.onnx")
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_no_derivatives(exported: Callable[[str], Path], tmp_path: Path) -> None:
    plain = export(InPlace().eval(), IMAGES[:2], tmp_path / "model.onnx")
    with pytest.raises(OnnxModelError, match="no graph of a Lie derivative"):
        LieDerivativeModel(plain)
    model = onnx.load(str(exported("cnn")))
    for text in ('[{"name": "nothing"}]', '["rotation"]', '[{"coefficients": 3}]', "3", "{"):
        for entry in model.metadata_props:
            if entry.key == "captum_lie.groups":
                entry.value = text
        onnx.save(model, str(tmp_path / "broken.onnx"))
        with pytest.raises(OnnxModelError, match="malformed"):
            LieDerivativeModel(tmp_path / "broken.onnx")


def test_images_that_the_graph_does_not_take(exported: Callable[[str], Path]) -> None:
    found = LieDerivativeModel(exported("cnn"), threads=1)
    with pytest.raises(OnnxModelError, match="failed to run"):
        found(torch.rand(2, 3, 16, 16))
    with pytest.raises(ValueError, match="N, C, H, W"):
        found(IMAGES[0])


def test_nothing_is_printed_and_nothing_changes(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model, example = InPlace().eval(), IMAGES[:2].clone().requires_grad_()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export_lie_derivative(model, "scale", example, tmp_path / "lie.onnx")
    assert capfd.readouterr() == ("", "")
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert [file.name for file in tmp_path.iterdir()] == ["lie.onnx"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cnn_blur", "vit", "mixer"])
@pytest.mark.parametrize("interpolation", ["bilinear", "central", "fourier"])
def test_the_trained_models_under_every_rule(tmp_path: Path, name: str, interpolation: Any) -> None:
    model, groups = load_model(name), get_groups("all", interpolation=interpolation)
    path = export_lie_derivative(model, groups, IMAGES[:1], tmp_path / "lie.onnx")
    for n in (1, 2, 7):
        assert_exact(run(path, IMAGES[:n])[1], model, IMAGES[:n], groups)
