"""The training penalty in training mode: statistics, masks, and what the model keeps."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from captum_lie import LiePenalty
from captum_lie.errors import UserError
from tests.test_penalty import directional, gradient
from tests.toy_models import Fails, build, images


def training(name: str) -> nn.Module:
    return build(name).train()


def state(model: nn.Module) -> dict[str, Any]:
    """Everything about a model that a call could change."""
    return {
        "values": {k: v.clone() for k, v in model.state_dict().items()},
        "buffers": {k: id(b) for k, b in model.named_buffers()},
        "parameters": {
            k: (id(p), p.requires_grad, None if p.grad is None else p.grad.clone())
            for k, p in model.named_parameters()
        },
        "modules": {
            k: (m.training, len(m._forward_hooks), len(m._forward_pre_hooks), sorted(vars(m)))
            for k, m in model.named_modules()
        },
    }


def assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    for name, value in before.pop("values").items():
        assert torch.equal(value, after["values"][name]), name
    after.pop("values")
    assert before == after


@pytest.mark.parametrize("name", ["resnet", "vit"])
@pytest.mark.parametrize("train", [True, False])
def test_the_model_stays_as_it_was(name: str, train: bool) -> None:
    model = build(name).train(train)
    before = state(model)
    LiePenalty(["rotation", "scale"])(model, images(4))
    assert_same(before, state(model))
    assert torch.backends.mha.get_fastpath_enabled()


def test_also_where_it_fails() -> None:
    failing = Fails()
    failing.armed = True
    model = nn.Sequential(nn.BatchNorm2d(3, dtype=torch.float64), failing)
    before = state(model)
    with pytest.raises(KeyError, match="the model failed"):
        LiePenalty("rotation")(model, images(4))
    assert_same(before, state(model))
    assert torch.backends.mha.get_fastpath_enabled()
    x = images(4).requires_grad_()
    (nn.functional.conv2d(x, torch.ones(1, 3, 1, 1).double()) ** 2).sum().backward()
    assert x.grad is not None


def test_running_statistics_are_updated_once_by_with_output_and_never_by_a_call() -> None:
    x = images(4)
    once, ours, alone = (training("resnet") for _ in range(3))
    once(x)
    LiePenalty(["rotation", "scale"]).with_output(ours, x)
    for name, buffer in once.named_buffers():
        assert torch.equal(buffer, ours.get_buffer(name)), name
    before = state(alone)
    output, loss = alone(x), LiePenalty("rotation")(alone, x)
    (output.square().sum() + loss).backward()  # nothing that it needs was overwritten
    for name, buffer in once.named_buffers():
        assert torch.equal(buffer, alone.get_buffer(name)), name
    assert before["modules"] == state(alone)["modules"]


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_the_output_is_the_model_s(name: str) -> None:
    """The same masks of dropout from the same seed, gradients too."""
    model, x = training(name), images(4)
    torch.manual_seed(0)
    expected = model(x)
    torch.manual_seed(0)
    output, _ = LiePenalty("rotation").with_output(model, x)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(
        gradient(output.sin().sum(), model), gradient(expected.sin().sum(), model)
    )


def with_statistics_of(model: nn.Module, x: Tensor) -> nn.Module:
    """A copy in evaluation mode whose running statistics are the batch's."""
    fixed = copy.deepcopy(model)
    hooks = []
    for module in fixed.modules():
        if isinstance(module, nn.BatchNorm2d):

            def note(module: nn.Module, args: Any) -> None:
                variance, mean = torch.var_mean(args[0].detach(), (0, 2, 3), correction=0)
                module.running_mean, module.running_var = mean, variance

            hooks.append(module.register_forward_pre_hook(note))
    fixed.eval()(x)
    for hook in hooks:
        hook.remove()
    return fixed


@pytest.mark.parametrize("groups", ["rotation", "brightness"])
def test_statistics_are_held_where_the_images_move(groups: str) -> None:
    """As in a model that is used: also brightness costs, which moving statistics would undo."""
    model, x = training("resnet_smooth"), images(4)
    value = LiePenalty(groups)(model, x)
    expected = LiePenalty(groups)(with_statistics_of(model, x), x)
    assert value > 1e-9
    torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("name", ["resnet_smooth", "vit"])
def test_gradient_in_training_mode_equals_differences(name: str) -> None:
    """Statistics are functions of the parameters; masks are the same at every evaluation."""
    model, x = training(name), images(4)
    penalty = LiePenalty(["rotation", "brightness"])

    def value(model: nn.Module, parameters: dict[str, Tensor]) -> Tensor:
        torch.manual_seed(0)
        return penalty(lambda x: functional_call(model, parameters, x), x)

    torch.manual_seed(0)
    found, expected = directional(value, gradient(penalty(model, x), model), model)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0.0)


class Dropped(nn.Module):
    """A linear model in which whole channels are dropped, so that the mask can be read."""

    def __init__(self, drop: nn.Module) -> None:
        super().__init__()
        self.drop = drop
        self.mask: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.drop(x)
        self.mask = y / x
        return y.flatten(1)


@pytest.mark.parametrize("drop", [nn.Dropout(0.5), nn.Dropout2d(0.5), nn.FeatureAlphaDropout(0.5)])
def test_an_image_and_its_tangent_have_one_mask(drop: nn.Module) -> None:
    x = images(2, (3, 4)) + 0.5
    model = Dropped(drop).train()
    torch.manual_seed(0)
    output, value = LiePenalty("brightness", output_fn=None).with_output(model, x)
    torch.manual_seed(0)
    expected = torch.autograd.functional.jvp(model, x, x)[1]
    torch.testing.assert_close(value, expected.square().mean())
    torch.manual_seed(0)
    torch.testing.assert_close(output, model(x))


def test_parametrisations_are_not_updated_by_a_call() -> None:
    conv = nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 4, 3, dtype=torch.float64))
    model = nn.Sequential(conv, nn.Flatten(), nn.Linear(240, 5, dtype=torch.float64)).train()
    before = state(model)
    LiePenalty("rotation")(model, images(2))
    assert_same(before, state(model))


def loop(
    loss_of: Callable[[nn.Module, Tensor, Tensor], Tensor], steps: int = 8
) -> tuple[float, float]:
    """A few steps of training; the task's loss and the penalty afterwards."""
    model, x = training("resnet_smooth"), images(8)
    y = torch.arange(8) % 5
    optimiser = torch.optim.SGD(model.parameters(), 0.5)
    for _ in range(steps):
        optimiser.zero_grad()
        loss_of(model, x, y).backward()
        optimiser.step()
    return float(nn.functional.cross_entropy(model(x), y)), float(LiePenalty("scale")(model, x))


def test_training_with_it_lowers_it() -> None:
    penalty = LiePenalty("scale")

    def plain(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(model(x), y)

    def apart(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return plain(model, x, y) + 100 * penalty(model, x)

    def shared(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        logits, error = penalty.with_output(model, x)
        return nn.functional.cross_entropy(logits, y) + 100 * error

    assert loop(shared) == pytest.approx(loop(apart), rel=1e-6)
    assert loop(shared)[1] < 0.5 * loop(plain)[1]


def test_one_image_that_batch_normalisation_cannot_train_on() -> None:
    """PyTorch's own error, unchanged."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(288, 4), nn.BatchNorm1d(4)).double().train()
    with pytest.raises(ValueError, match="more than 1 value") as raised:
        LiePenalty("rotation")(model, images(1))
    assert not isinstance(raised.value, UserError)
