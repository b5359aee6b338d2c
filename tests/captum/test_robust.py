"""Groups as perturbations in captum.robust, against searches and comparisons written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from captum.robust import AttackComparator, MinParamPerturbation, Perturbation
from torch import Tensor

from captum_lie import GROUP_NAMES, Rotation, get_group, lie_derivative
from captum_lie.examples import load_images, load_model
from captum_lie.robust import GroupPerturbation
from tests.toy_models import build, images

STEP = 0.03


@pytest.mark.parametrize("name", GROUP_NAMES)
def test_a_perturbation_is_the_group_action(name: str) -> None:
    x, t = images(), torch.tensor([0.1, -0.2])
    perturbation = GroupPerturbation(name)
    assert isinstance(perturbation, Perturbation)
    assert torch.equal(perturbation(x, t), get_group(name).act(x, t))
    assert torch.equal(perturbation(x, t=0.1), get_group(name).act(x, 0.1))
    other = images(size=(5, 7))
    first, second = perturbation((x, other), 0.1)
    assert torch.equal(first, get_group(name).act(x, 0.1))
    assert torch.equal(second, get_group(name).act(other, 0.1))
    assert not perturbation(x.requires_grad_(), 0.1).requires_grad


def test_bad_perturbations_say_why() -> None:
    with pytest.raises(ValueError, match="Unknown group"):
        GroupPerturbation("spin")
    with pytest.raises(ValueError, match=r"\[N, C, H, W\]"):
        GroupPerturbation()(torch.rand(3, 8, 8), 0.1)
    with pytest.raises(ValueError, match="one parameter per image"):
        GroupPerturbation()(images(), torch.rand(3))


def searched(model: Any, x: Tensor, label: Tensor, group: Any, steps: int) -> float | None:
    """The first multiple of STEP at which the prediction is another."""
    for i in range(steps):
        if model(group.act(x, i * STEP)).argmax(1) != label:
            return i * STEP
    return None


@pytest.mark.parametrize("at_once", [1, 4])
def test_the_smallest_rotation_that_changes_the_prediction(at_once: int) -> None:
    model, (x, labels) = load_model("cnn"), load_images(6)
    rotation = Rotation()
    search = MinParamPerturbation(model, GroupPerturbation(rotation), "t", 0.0, 30 * STEP, STEP)
    found, expected = [], []
    for i in range(len(x)):
        one, label = x[i : i + 1], labels[i : i + 1]
        moved, t = search.evaluate(one, target=label, perturbations_per_eval=at_once)
        found.append(t)
        expected.append(searched(model, one, label, rotation, 30))
        if t is not None:
            torch.testing.assert_close(moved, rotation.act(one, t))
            assert model(moved).argmax(1) != label
    assert found == pytest.approx(expected)
    assert any(t is not None for t in found)
    assert any(t is None for t in found)


def test_binary_search_and_normalisation_before_or_after() -> None:
    """Brightness acts on the image before normalisation, where it means brightness."""

    def model(z: Tensor) -> Tensor:  # class 1 once the normalised mean exceeds 1
        mean = z.mean((1, 2, 3))
        return torch.stack([torch.ones_like(mean), mean], 1)

    def normalise(x: Tensor) -> Tensor:
        return (x - 0.5) / 0.25

    x, label = torch.full((1, 3, 4, 4), 0.61), torch.tensor([0])
    expected = {True: 0.75 / 0.61 - 1, False: 1 / 0.44 - 1}  # 0.61 (1 + t) = 0.75, or 0.44 ... = 1
    for before, exact in expected.items():
        search = MinParamPerturbation(
            model,
            GroupPerturbation("brightness"),
            "t",
            *(0.0, 2.0, 0.01),
            mode="binary",
            preproc_fn=normalise,
            apply_before_preproc=before,
        )
        _, t = search.evaluate(x, target=label)
        assert exact < t < exact + 0.02


def test_attack_comparator() -> None:
    model, x = build("resnet"), images(4)
    target = torch.tensor([0, 1, 2, 3])

    def metric(output: Tensor, target: Tensor) -> Tensor:
        return output.gather(1, target[:, None])[:, 0]

    comparator: AttackComparator[Tensor] = AttackComparator(model, metric)
    moves = {"rotation": 0.2, "scale": -0.1, "brightness": 0.3}
    for name, t in moves.items():
        comparator.add_attack(GroupPerturbation(name), name, attack_kwargs={"t": t})
    with torch.no_grad():
        results: Any = [
            comparator.evaluate(part, target=wanted)
            for part, wanted in zip(x.split(2), target.split(2), strict=True)
        ]
        torch.testing.assert_close(results[1]["Original"], metric(model(x[2:]), target[2:]))
        for name, t in moves.items():
            moved = metric(model(get_group(name).act(x, t)), target)
            found = torch.cat([r[name]["mean"] for r in results])
            torch.testing.assert_close(found, moved)
            assert (moved - metric(model(x), target)).abs().min() > 1e-5
            summary: Any = comparator.summary()[name]["mean"]
            torch.testing.assert_close(summary, moved.mean())


def test_the_change_under_a_small_move_is_the_lie_derivative() -> None:
    model, x, t = build("resnet_smooth"), images(3), 1e-6

    def metric(output: Tensor) -> Tensor:
        return output[:, 1]

    comparator: AttackComparator[Tensor] = AttackComparator(model, metric)
    group = Rotation(interpolation="central")  # smooth: bilinear has a kink at t = 0
    comparator.add_attack(GroupPerturbation(group), "rotation", attack_kwargs={"t": t})
    with torch.no_grad():
        result: Any = comparator.evaluate(x)
    rate = (result["rotation"]["mean"] - result["Original"]) / t
    torch.testing.assert_close(
        rate, lie_derivative(model, x, group, target=1), rtol=1e-3, atol=1e-6
    )
