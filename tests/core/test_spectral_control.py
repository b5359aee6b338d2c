"""The control in closed form: brute force over phases, sampled phases, unbiased probes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from captum_lie import GROUP_NAMES, LocalEquivarianceError, get_groups
from captum_lie.attribution.norms import mean_square
from captum_lie.core.derivative import ModelFunction, derivatives_along
from captum_lie.core.probes import Probes
from captum_lie.core.scrambling import phase_scrambled
from captum_lie.core.spectral_control import NoReverseModeError, spectral_control
from captum_lie.examples import load_model
from captum_lie.groups import OneParameterGroup
from captum_lie.resampling import Border, Interpolation


def quadratic(outputs: int, channels: int, height: int, width: int) -> Callable[[Tensor], Tensor]:
    """A smooth function with a dense Jacobian that depends on the image."""
    generator = torch.Generator().manual_seed(outputs)
    size = channels * height * width
    weight, second = torch.randn(2, size, outputs, generator=generator, dtype=torch.float64)

    def function(x: Tensor) -> Tensor:
        flat = x.flatten(1)
        return flat @ weight.to(x) + 0.1 * (flat @ second.to(x)) ** 2

    return function


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def every_phase(height: int, width: int) -> Tensor:
    """All Hermitian phase patterns with three phases a pair and both signs: ``[P, H, W]``.

    Three equally spaced phases have the first two moments of a uniform one, which is all that the
    mean of a square sees.
    """
    pairs: list[tuple[tuple[int, int], tuple[int, int]]] = []
    fixed: list[tuple[int, int]] = []
    for k in itertools.product(range(height), range(width)):
        mirrored = (-k[0] % height, -k[1] % width)
        if mirrored == k:
            fixed.append(k)
        elif k < mirrored:
            pairs.append((k, mirrored))
    turns = torch.exp(2j * torch.pi * torch.arange(3, dtype=torch.float64) / 3)
    patterns = []
    for signs in itertools.product((1.0, -1.0), repeat=len(fixed)):
        for chosen in itertools.product(turns, repeat=len(pairs)):
            phases = torch.zeros(height, width, dtype=torch.complex128)
            for place, sign in zip(fixed, signs, strict=True):
                phases[place] = sign
            for (k, mirrored), turn in zip(pairs, chosen, strict=True):
                phases[k], phases[mirrored] = turn, turn.conj()
            patterns.append(phases)
    return torch.stack(patterns)


def test_equals_brute_force_over_all_phases() -> None:
    phases = every_phase(3, 4)
    assert len(phases) == 2**2 * 3**5
    x, function = images(2, 3, 3, 4), quadratic(5, 3, 3, 4)
    groups = get_groups("all")
    tangents = torch.stack([g.generator(x) for g in groups])
    found = spectral_control(function, (x,), (tangents,))
    jacobian = torch.autograd.functional.jacobian(
        lambda y: function(y).sum(0), x
    )  # [K, N, C, H, W]
    for i in range(len(groups)):
        spectrum = torch.fft.fft2(tangents[i])
        scrambled = torch.fft.ifft2(spectrum * phases[:, None, None]).real  # [P, N, C, H, W]
        response = torch.einsum("pnchw,knchw->pnk", scrambled, jacobian)
        torch.testing.assert_close(
            found.mean[:, i], response.square().mean((0, 2)), rtol=1e-10, atol=1e-12
        )
    assert not found.stderr.any()


@pytest.mark.parametrize("size", [(4, 5), (5, 4), (6, 6), (1, 7), (7, 1)])
@pytest.mark.parametrize(
    ("interpolation", "border"),
    [("bilinear", "reflect"), ("bilinear", "circular"), ("central", "reflect"), ("fourier", None)],
)
def test_equals_the_mean_of_many_scrambles(
    size: tuple[int, int], interpolation: Interpolation, border: Border | None
) -> None:
    x, function = images(2, 3, *size), quadratic(3, 3, *size)
    groups = get_groups("all", interpolation=interpolation, border=border)
    exact = LocalEquivarianceError(function, output_fn=None).control_score(x, groups)
    samples = scrambled_scores(function, (x,), groups, 2000)
    error = samples.std(1) / samples.shape[1] ** 0.5
    difference = (samples.mean(1).T - exact).abs()
    assert (difference <= 4.5 * error.T + 1e-12).all()


def scrambled_scores(
    function: Callable[..., Tensor],
    xs: tuple[Tensor, ...],
    groups: list[OneParameterGroup],
    copies: int,
) -> Tensor:
    """LEE along sampled phases, ``[G, copies, N]``."""

    def tangents(inputs: tuple[Tensor, ...], first: int) -> tuple[Tensor, ...]:
        return tuple(
            torch.cat([phase_scrambled(g.generator(x), copies) for g in groups]) for x in inputs
        )

    ((_, derivative),) = derivatives_along(
        ModelFunction(function), xs, tangents, len(groups) * copies
    )
    return mean_square(derivative).unflatten(0, (len(groups), copies))


@pytest.mark.parametrize("sizes", [((4, 5), (4, 5)), ((4, 5), (6, 3))])
def test_tuples_share_phases_where_they_share_a_size(
    sizes: tuple[tuple[int, int], tuple[int, int]],
) -> None:
    xs = tuple(images(1, 2, *size, seed=i) for i, size in enumerate(sizes))
    first, second = quadratic(2, 2, *sizes[0]), quadratic(2, 2, *sizes[1])

    def function(a: Tensor, b: Tensor) -> Tensor:
        return first(a) * second(b)

    groups = get_groups(["rotation", "brightness"])
    exact = LocalEquivarianceError(function, output_fn=None).control_score(xs, groups)
    samples = scrambled_scores(function, xs, groups, 4000)
    error = samples.std(1) / samples.shape[1] ** 0.5
    assert ((samples.mean(1).T - exact).abs() <= 4.5 * error.T).all()


def test_one_tangent_basis_serves_every_group() -> None:
    """Nine spatial groups are quadratic forms of six tangents; alone each gives the same."""
    x, function = images(2, 3, 5, 6), quadratic(4, 3, 5, 6)
    method = LocalEquivarianceError(function)
    together = method.control_score(x, "all")
    for i, name in enumerate(GROUP_NAMES):
        torch.testing.assert_close(together[:, i], method.control_score(x, name)[:, 0])


def test_probes_are_unbiased_and_their_error_is_right() -> None:
    x = images(1, 1, 6, 6)
    function = quadratic(60, 1, 6, 6)

    def probabilities(y: Tensor) -> Tensor:
        return function(y).mul(0.2).softmax(1)

    tangents = torch.stack([g.generator(x) for g in get_groups(["rotation", "scale"])])
    exact = spectral_control(probabilities, (x,), (tangents,), probes=Probes(60))
    assert not exact.stderr.any()
    runs = [
        spectral_control(probabilities, (x,), (tangents,), probes=Probes(16, seed=seed))
        for seed in range(400)
    ]
    means = torch.stack([r.mean[0] for r in runs])
    spread = means.std(0)
    assert (spread > 0.02 * exact.mean[0]).all()  # there is an error to speak of
    assert ((means.mean(0) - exact.mean[0]).abs() < 4 * spread / 400**0.5).all()
    stated = torch.stack([r.stderr[0] for r in runs]).square().mean(0).sqrt()
    torch.testing.assert_close(stated, spread, rtol=0.15, atol=0.0)


def test_probes_do_not_depend_on_how_examples_are_batched() -> None:
    x, function = images(5, 1, 6, 6), quadratic(60, 1, 6, 6)
    method = LocalEquivarianceError(function)
    whole = method.control_score(x, "all", seed=3, first_index=10)
    for size in (1, 2):
        split = method.control_score(x, "all", seed=3, first_index=10, internal_batch_size=size)
        torch.testing.assert_close(split, whole)
    last = method.control_score(x[4:], "all", seed=3, first_index=14)
    torch.testing.assert_close(last, whole[4:])
    other = method.control_score(x, "all", seed=4, first_index=10)
    assert not torch.allclose(other, whole, rtol=1e-3)


def test_more_probes_come_closer() -> None:
    x, function = images(8, 1, 6, 6), quadratic(100, 1, 6, 6)
    method = LocalEquivarianceError(function, output_fn=None)
    exact = method.control_score(x, "rotation", n_probes=100)
    errors = []
    for n in (4, 32):
        runs = [method.control_score(x, "rotation", n_probes=n, seed=s) for s in range(12)]
        errors.append(torch.stack([(r - exact) / exact for r in runs]).square().mean().sqrt())
    assert errors[1] < errors[0] / 2


def test_single_precision_agrees_with_double() -> None:
    model = load_model("vit")
    x = images(3, 3, 32, 32)
    single = LocalEquivarianceError(model).control_score(x.float(), "all")
    double = LocalEquivarianceError(load_model("vit").double()).control_score(x, "all")
    torch.testing.assert_close(single, double, rtol=1e-4, atol=0.0)


class _ForwardOnly(torch.autograd.Function):
    """A cube without reverse mode."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.x = x
        return x**3

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        derivative: Tensor = 3 * ctx.x**2 * tangent
        return derivative


@pytest.mark.parametrize("reason", ["no backward", "detached"])
def test_a_model_without_reverse_mode_is_measured_along_samples(reason: str) -> None:
    weight = torch.randn(48, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def forward_only(x: Tensor) -> Tensor:
        if reason == "detached":
            with torch.no_grad():
                return (x**3).flatten(1) @ weight
        return _ForwardOnly.apply(x).flatten(1) @ weight

    def native(x: Tensor) -> Tensor:
        return (x**3).flatten(1) @ weight

    x = images(3, 3, 4, 4)
    with pytest.warns(UserWarning, match="reverse mode"):
        sampled = LocalEquivarianceError(forward_only).control_score(x, ["rotation", "scale"])
    exact = LocalEquivarianceError(native).control_score(x, ["rotation", "scale"])
    assert sampled.shape == exact.shape
    assert ((sampled / exact) > 0.2).all()
    assert ((sampled / exact) < 5).all()


def test_what_has_no_gradient_says_so() -> None:
    with pytest.raises(NoReverseModeError):
        spectral_control(lambda x: x.detach().sum((1, 2, 3)), (images(1, 1, 3, 3),),
                         (images(1, 1, 1, 3, 3),))  # fmt: skip


def test_dense_outputs_of_trivial_layout_count_as_many_outputs() -> None:
    x = images(2, 1, 4, 4)
    convolution = torch.nn.Conv2d(1, 2, 3, padding=1).double()
    dense = LocalEquivarianceError(convolution, output_fn=None)
    flat = LocalEquivarianceError(lambda y: convolution(y).flatten(1), output_fn=None)
    torch.testing.assert_close(dense.control_score(x), flat.control_score(x))
    assert dense.control_score(x).shape == (2, 10)


def test_the_absolute_norm_has_a_control_too() -> None:
    x, function = images(2, 1, 5, 5), quadratic(3, 1, 5, 5)
    l1 = LocalEquivarianceError(function, output_fn=None, norm="l1")
    l2 = LocalEquivarianceError(function, output_fn=None)
    squared = l1.control_score(x, "rotation").square()
    assert (squared < l2.control_score(x, "rotation")).all()  # Jensen
    assert (squared > 0.1 * l2.control_score(x, "rotation")).all()


def test_a_zero_coefficient_of_the_noise_is_no_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silence:
        def standard_normal(self, shape: tuple[int, ...]) -> object:
            return torch.zeros(shape, dtype=torch.float64).numpy()

    monkeypatch.setattr("numpy.random.default_rng", lambda _: Silence())
    x = images(1, 2, 4, 4)
    torch.testing.assert_close(phase_scrambled(x, 1)[0], x)
