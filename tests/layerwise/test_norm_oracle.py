"""``measure="norm"`` against a literal loop over layers, and the statistics of its probes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import jacobian

from captum_lie import get_group, lie_derivative
from captum_lie.core.probes import Probes
from captum_lie.layerwise import LayerwiseEquivarianceError
from captum_lie.layerwise.fluxes import Recording, recorded
from captum_lie.layerwise.forward_norms import contribution_vectors
from captum_lie.layerwise.probes import ROUND, squared_norms
from tests.toy_models import Applied, ReverseOnly, WrongBackward, build, images

GROUPS = ["translation_x", "rotation", "brightness"]
Function = Callable[[Tensor], Tensor]


def softmax(x: Tensor) -> Tensor:
    return x.softmax(1)


class Reuse(nn.Module):
    """A residual branch, and an activation that runs three times."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 3, 3, stride=2, padding=1)
        self.act = nn.SiLU()
        self.branch = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Tanh())
        self.head = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        a = self.act(self.stem(x))
        b = self.act(a + self.branch(a))
        return self.head(self.act(b).mean((2, 3)))


def reuse() -> nn.Module:
    torch.manual_seed(0)
    return Reuse().double().eval()


def split_by_hand(m: Reuse, x: Tensor) -> dict[tuple[str, int], tuple[Tensor, Function, Function]]:
    """For each call: its input, what it does, and the rest of the network from its output on."""

    def tail(b: Tensor) -> Tensor:  # from the sum b on
        return softmax(m.head(m.act(m.act(b)).mean((2, 3))))

    stem = m.stem(x)
    a = m.act(stem)
    c = m.branch[0](a)
    b = a + m.branch[1](c)

    def from_a(a: Tensor) -> Tensor:
        return tail(a + m.branch(a))

    def last(d: Tensor) -> Tensor:
        return softmax(m.head(d.mean((2, 3))))

    return {
        ("stem", 0): (x, m.stem, lambda y: from_a(m.act(y))),
        ("act", 0): (stem, m.act, from_a),
        # Through the branch only: the shortcut is not the branch's doing.
        ("branch", 0): (a, m.branch, lambda y: tail(a + y)),
        ("branch.0", 0): (a, m.branch[0], lambda y: tail(a + m.branch[1](y))),
        ("branch.1", 0): (c, m.branch[1], lambda y: tail(a + y)),
        ("act", 1): (b, m.act, lambda y: last(m.act(y))),
        ("act", 2): (m.act(b), m.act, last),
    }


def contribution(x: Tensor, layer: Function, rest: Function, group: str) -> Tensor:
    """``C = J_rest (J ξ(x) - ξ(f(x)))`` of one example, by full Jacobians, ``[K]``."""
    action, y = get_group(group), layer(x)
    inner = torch.as_tensor(jacobian(layer, x)).reshape(y.numel(), x.numel())
    outer = torch.as_tensor(jacobian(rest, y)).reshape(-1, y.numel())
    motion = action.generator(y).flatten()
    return (outer @ (inner @ action.generator(x).flatten() - motion)).detach()


@pytest.mark.parametrize("group", GROUPS)
def test_exact_is_the_literal_loop_with_residuals_and_reuse(group: str) -> None:
    model, x = reuse(), images(2, (6, 8))
    assert isinstance(model, Reuse)
    result = LayerwiseEquivarianceError(model).attribute(x, group=group, measure="norm")
    assert result.stderr is None or not result.stderr.nan_to_num().any()
    index = {(row.module, row.call): i for i, row in enumerate(result.rows)}
    assert len(index) == 9  # the seven below, the model and the head
    for n in range(2):
        for key, (inner, layer, rest) in split_by_hand(model, x[n : n + 1]).items():
            expected = contribution(inner.detach(), layer, rest, group).square().sum() / 4
            found = result.contributions[index[key], n]
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-18, msg=str(key))
            if key != ("branch", 0):
                own = result.self_contributions[index[key], n]
                torch.testing.assert_close(own, expected, rtol=1e-10, atol=1e-18)
    assert result.contributions[index[("head", 0)]].abs().max() < 1e-24
    torch.testing.assert_close(result.contributions[0], result.total)


@pytest.mark.parametrize("group", GROUPS)
def test_exact_is_the_literal_loop_on_a_chain(group: str) -> None:
    torch.manual_seed(1)
    modules = [
        nn.Conv2d(3, 3, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(3, 4, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ]
    model, x = nn.Sequential(*modules).double().eval(), images(1, (8, 12))
    result = LayerwiseEquivarianceError(model).attribute(x, group=group, measure="norm")
    y = x
    for i, module in enumerate(modules[:4]):
        rest = nn.Sequential(*modules[i + 1 :], nn.Softmax(1))
        expected = contribution(y, module, rest, group).square().sum() / 4
        torch.testing.assert_close(result.contributions[i + 1, 0], expected, rtol=1e-10, atol=1e-18)
        y = module(y).detach()


def classifier(outputs: int, scale: float) -> tuple[nn.Module, Tensor]:
    """A classifier whose scores are scaled, the more the more confident, and one image."""
    torch.manual_seed(0)
    head = nn.Linear(6, outputs)
    with torch.no_grad():
        head.weight.mul_(scale)
    conv = nn.Conv2d(3, 6, 3, stride=2, padding=1)
    mean = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(conv, nn.SiLU(), *mean, head).double().eval(), images(1, (6, 8))


@pytest.mark.parametrize(("outputs", "probes"), [(40, 12), (40, 24), (200, 120)])
def test_probes_are_unbiased_and_their_standard_errors_cover(outputs: int, probes: int) -> None:
    model, x = classifier(outputs, 10.0)
    method = LayerwiseEquivarianceError(model)
    rows = [1, 2]  # convolution and activation
    truth = method.attribute(x, group="rotation", measure="norm").contributions[rows]
    # Each example has probes of its own: 400 repetitions at once.
    estimate = method.attribute(
        x.expand(400, -1, -1, -1), group="rotation", measure="norm", n_probes=probes, seed=3
    )
    assert estimate.stderr is not None
    values, stderr = estimate.contributions[rows], estimate.stderr[rows]
    spread = values.std(1, keepdim=True)
    assert (spread > 1e-3 * truth).all()  # the estimates are estimates
    bias = (values.mean(1, keepdim=True) - truth) / (spread / 20)
    assert (bias.abs() < 4).all(), bias
    calibration = stderr.square().mean(1, keepdim=True).sqrt() / spread
    assert calibration == pytest.approx(1, abs=0.15)
    # Squares are skewed to the right: intervals from few of them hold the truth less often than
    # normal ones do. The rate is nominal in the limit of many.
    if probes > 100:
        for width, nominal in ((1.0, 0.683), (2.0, 0.954)):
            covered = ((values - truth).abs() <= width * stderr).double().mean(1)
            assert covered == pytest.approx(nominal, abs=0.05)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """An entry for every backward pass."""
    seen: list[None] = []
    contributions = Recording.contributions

    def counted(self: Recording, *args: Any) -> Tensor:
        seen.append(None)
        return contributions(self, *args)

    monkeypatch.setattr(Recording, "contributions", counted)
    return seen


def test_a_tolerance_stops_the_probing_as_soon_as_it_is_met(passes: list[None]) -> None:
    model, x = classifier(400, 3.0)
    method = LayerwiseEquivarianceError(model)
    truth = method.attribute(x, "rotation", "norm").contributions
    leaves = [1, 2, 3]  # convolution, activation and pooling: the others are exactly zero
    spent = []
    for share in (0.3, 0.15, 0.09):
        tolerance = share * truth[leaves].max().item()
        passes.clear()
        result = method.attribute(x, "rotation", "norm", tolerance=tolerance, seed=3)
        spent.append(len(passes))
        assert result.stderr is not None
        assert 0 < result.stderr[leaves].max() < tolerance
        assert ((result.contributions - truth)[leaves].abs() < 5 * tolerance).all()
        # Eight signs fewer would not have been enough.
        with recorded(model, (x,), output_fn=softmax) as recording:
            group = [get_group("rotation")]
            sooner = squared_norms(recording, group, Probes(spent[-1] - ROUND, seed=3), top=ROUND)
        assert spent[-1] == 2 * ROUND or sooner.stderr[leaves].max() / 400 > tolerance
    assert 2 * ROUND == spent[0] < spent[1] < spent[2] < 200


def test_probing_ends_at_its_limit_and_without_one_in_exact_norms(passes: list[None]) -> None:
    model, x = classifier(40, 10.0)
    method = LayerwiseEquivarianceError(model)
    truth = method.attribute(x, "rotation", "norm")
    passes.clear()
    limited = method.attribute(x, "rotation", "norm", tolerance=1e-30, n_probes=20)
    assert len(passes) == 20
    assert limited.stderr is not None
    assert limited.stderr.nansum() > 1e-30
    exact = method.attribute(x, "rotation", "norm", tolerance=1e-30)
    assert "exact" in exact.method
    torch.testing.assert_close(exact.contributions, truth.contributions)


def gaussian(recording: Recording, group: str, probes: int, seed: int) -> Tensor:
    """Mean of ``⟨v, C_i⟩²`` over Gaussian v, ``[R, N]``."""
    generator = torch.Generator().manual_seed(seed)
    squares = [
        recording.contributions(
            torch.randn(recording.output.shape, generator=generator, dtype=torch.float64),
            [get_group(group)],
        )[:, 0].square()
        for _ in range(probes)
    ]
    return torch.stack(squares).mean(0)


@pytest.mark.parametrize("probes", [8, 16])
def test_most_probable_outputs_first_beats_gaussian_probes(probes: int) -> None:
    model, x = classifier(40, 60.0)
    assert model(x).softmax(1).max() > 0.6  # confident
    x = x.expand(300, -1, -1, -1)
    with recorded(model, (x,), output_fn=softmax) as recording:
        truth = squared_norms(recording, [get_group("rotation")]).total[:, 0]
        chosen = Probes(probes, seed=1)
        ours = squared_norms(recording, [get_group("rotation")], chosen).total[:, 0]
        theirs = gaussian(recording, "rotation", probes, seed=1)
    for row in (1, 2):
        errors = [(e[row] - truth[row]).square().mean().sqrt() for e in (ours, theirs)]
        assert errors[1] > 3 * errors[0], (row, errors)
        relative = errors[1] / truth[row, 0]
        assert relative == pytest.approx((2 / probes) ** 0.5, rel=0.25)  # √(2/P), as it must be


@pytest.mark.parametrize("batch", [1, 2])
def test_forward_mode_gives_the_vectors_of_the_literal_loop(batch: int) -> None:
    model, x = reuse(), images(batch, (6, 8))
    assert isinstance(model, Reuse)
    groups = [get_group(name) for name in GROUPS]
    with recorded(model, (x,), output_fn=softmax) as recording:
        vectors = contribution_vectors(recording, groups)
        calls = [(call.name, call.index) for call in recording.calls]
    assert vectors.shape == (9, 3, batch, 4)
    for n in range(batch):
        for key, (inner, layer, rest) in split_by_hand(model, x[n : n + 1]).items():
            for g, group in enumerate(GROUPS):
                expected = contribution(inner.detach(), layer, rest, group)
                found = vectors[calls.index(key), g, n]
                torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14, msg=str(key))


@pytest.mark.parametrize("name", ["resnet", "vit", "mixer"])
def test_forward_mode_and_backward_passes_give_the_same_vectors(name: str) -> None:
    model, x = build(name), images(2)
    groups = [get_group(each) for each in (*GROUPS, "scale")]
    with recorded(model, (x,), output_fn=softmax) as recording:
        vectors = contribution_vectors(recording, groups)
        for k in range(recording.output.shape[1]):
            unit = torch.zeros_like(recording.output)
            unit[:, k] = 1
            backward = recording.contributions(unit, groups)
            torch.testing.assert_close(vectors[..., k], backward, rtol=1e-7, atol=1e-12)


def test_the_cheaper_mode_is_taken_and_named() -> None:
    few_outputs, x = classifier(2, 1.0)
    many_outputs, _ = classifier(300, 1.0)
    found = {}
    for model, mode in ((few_outputs, "reverse"), (many_outputs, "forward")):
        result = LayerwiseEquivarianceError(model).attribute(x, group="rotation", measure="norm")
        assert mode in result.method
        found[mode] = result
    # Both are exact: the same numbers from as many backward passes as there are outputs.
    with recorded(many_outputs, (x,), output_fn=softmax) as recording:
        squares = torch.zeros(len(recording.calls), 1, dtype=torch.float64)
        for k in range(300):
            unit = torch.zeros_like(recording.output)
            unit[:, k] = 1
            squares += recording.contributions(unit, [get_group("rotation")])[:, 0].square()
    result = found["forward"]
    torch.testing.assert_close(result.contributions, squares / 300, rtol=1e-8, atol=1e-18)


def test_reverse_mode_serves_where_forward_mode_cannot() -> None:
    torch.manual_seed(0)
    outer = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 300)]
    conv = nn.Conv2d(3, 4, 3, padding=1)
    model = nn.Sequential(conv, Applied(ReverseOnly), *outer).double().eval()
    x = images(1, (6, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the totals say that they are by reverse-over-reverse
        result = LayerwiseEquivarianceError(model).attribute(x, "rotation", measure="norm")
    assert "reverse" in result.method
    rest = nn.Sequential(*outer, nn.Softmax(1)).double()
    y = conv(x).detach()
    expected = contribution(y, torch.square, rest, "rotation").square().sum() / 300
    torch.testing.assert_close(result.contributions[2, 0], expected, rtol=1e-8, atol=1e-18)


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_totals_of_several_groups_are_those_of_each(name: str) -> None:
    model, x = build(name), images(2)
    several = LayerwiseEquivarianceError(model).attribute(x, GROUPS, measure="target", target=1)
    for group, found in zip(GROUPS, several, strict=True):
        alone = LayerwiseEquivarianceError(model).attribute(x, group, measure="target", target=1)
        torch.testing.assert_close(found.total, alone.total, rtol=1e-8, atol=1e-12)
        torch.testing.assert_close(found.contributions, alone.contributions, rtol=1e-8, atol=1e-12)


def test_one_joint_tangent_finds_a_wrong_derivative() -> None:
    torch.manual_seed(0)
    conv, head = nn.Conv2d(3, 4, 3, stride=2), nn.Linear(4, 5)
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    model = nn.Sequential(Applied(WrongBackward), conv, nn.SiLU(), *pool, head).double().eval()
    x = images(2)
    several = LayerwiseEquivarianceError(model).attribute(x, GROUPS, measure="target", target=1)
    for group, found in zip(GROUPS, several, strict=True):
        truth = lie_derivative(lambda x: model(x).softmax(1), x, group, target=1)
        torch.testing.assert_close(found.total, truth.double(), rtol=1e-8, atol=1e-12)
        assert (found.unattributed.abs() > 1e-3 * found.total.abs()).all()
