"""``measure="norm"`` against a literal loop over layers, and the statistics of its probes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import jacobian

from captum_lie import get_group
from captum_lie.layerwise import LayerwiseEquivarianceError
from captum_lie.layerwise.fluxes import Recording, recorded
from captum_lie.layerwise.probes import squared_norms
from tests.toy_models import images

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
        ours = squared_norms(recording, [get_group("rotation")], probes, seed=1).total[:, 0]
        theirs = gaussian(recording, "rotation", probes, seed=1)
    for row in (1, 2):
        errors = [(e[row] - truth[row]).square().mean().sqrt() for e in (ours, theirs)]
        assert errors[1] > 3 * errors[0], (row, errors)
        relative = errors[1] / truth[row, 0]
        assert relative == pytest.approx((2 / probes) ** 0.5, rel=0.25)  # √(2/P), as it must be
