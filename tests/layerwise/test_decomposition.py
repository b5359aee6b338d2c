"""The contribution tree: complete, right for each module, and without side effects."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
import torch
from matplotlib.collections import LineCollection
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from captum_lie import LocalEquivarianceError, Rotation, Translation, examples, lie_derivative
from captum_lie.core.pairing import pairings
from captum_lie.groups import get_groups
from captum_lie.layerwise import LayerwiseEquivarianceError, LayerwiseResult
from captum_lie.layouts import NCHW, NHWC, TRIVIAL, UNKNOWN
from tests.toy_models import Fails, build, images


def complete(result: LayerwiseResult, tolerance: float) -> bool:
    scale = result.contributions.abs().nansum(0)
    gaps = (result.contributions[0] - result.total, result.unattributed)
    return all(bool((gap.abs() <= tolerance * scale).all()) for gap in gaps)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-12)])
@pytest.mark.parametrize("name", ["resnet", "resnet_smooth", "vit", "mixer"])
@pytest.mark.parametrize("measure", ["aligned", "target"])
def test_self_contributions_sum_to_the_total(
    name: str, measure: Any, dtype: Any, tolerance: float
) -> None:
    model, x = build(name, dtype=dtype), images(dtype=dtype)
    groups = get_groups("all")
    target = [1, 3] if measure == "target" else None
    results = LayerwiseEquivarianceError(model).attribute(x, groups, measure, target=target)
    score = LocalEquivarianceError(model).score(x)
    for i, (group, result) in enumerate(zip(groups, results, strict=True)):
        assert result.group == group.name
        assert complete(result, tolerance), group
        expected = (
            score[:, i]
            if measure == "aligned"
            else lie_derivative(lambda x: model(x).softmax(1), x, group, target=target)
        )
        torch.testing.assert_close(result.total, expected.double(), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_groups_together_are_decomposed_as_each_alone(name: str) -> None:
    """Ten groups share seven backward passes; each contribution is what one of its own gives."""
    model, x = build(name), images()
    passes = []
    method = LayerwiseEquivarianceError(model)
    first = next(iter(model.parameters()))
    model.register_full_backward_hook(lambda *_: passes.append(1))
    together = method.attribute(x, get_groups("all"))
    assert len(passes) == 7
    assert first.grad is None
    for group, result in zip(get_groups("all"), together, strict=True):
        alone = method.attribute(x, group)
        torch.testing.assert_close(
            result.contributions, alone.contributions, equal_nan=True, rtol=1e-7, atol=1e-13
        )
        torch.testing.assert_close(result.total, alone.total)


def test_contributions_of_a_chain_by_hand() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.SiLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 2, stride=2), nn.Flatten(),
        nn.Linear(20, 3),
    ).double()  # fmt: skip
    x, group = images(2, (10, 11)), Rotation()
    result = LayerwiseEquivarianceError(net, output_fn=None).attribute(x, group, "target", target=2)
    here, expected = x, []
    for i, module in enumerate(net):
        rest = net[i + 1 :]
        pushed = torch.func.jvp(module, (here,), (group.generator(here) if i < 5 else 0 * here,))
        there = pushed[0]
        error = pushed[1] - (group.generator(there) if there.ndim == 4 else 0)
        expected.append(torch.func.jvp(rest, (there,), (error,))[1][:, 2])
        here = there
    torch.testing.assert_close(result.contributions[1:], torch.stack(expected))


def test_a_stack_of_circular_linear_convolutions_contributes_nothing() -> None:
    torch.manual_seed(0)
    conv = [nn.Conv2d(3, 3, 3, padding=1, padding_mode="circular") for _ in range(3)]
    net = nn.Sequential(*conv, nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
    group = Translation("x", interpolation="fourier")
    result = LayerwiseEquivarianceError(net).attribute(images(), group, "target", target=1)
    assert result.contributions.abs().max() < 1e-15
    other = LayerwiseEquivarianceError(net).attribute(images(), Rotation(), "target", target=1)
    assert other.contributions[1:4].abs().min() > 1e-6


def test_pairings_are_inner_products_with_the_generator() -> None:
    x, g = images(2, (6, 9)), images(2, (6, 9), seed=5) - 0.5
    groups = [*get_groups("all"), *get_groups("all", interpolation="fourier"), Rotation()]
    expected = torch.stack([(g * group.generator(x)).sum((1, 2, 3)) for group in groups])
    torch.testing.assert_close(pairings(groups, g, x), expected)
    for size in ((1, 7), (7, 1), (2, 2)):
        x, g = images(2, size), images(2, size, seed=5) - 0.5
        expected = torch.stack([(g * group.generator(x)).sum((1, 2, 3)) for group in groups])
        torch.testing.assert_close(pairings(groups, g, x), expected)


def test_pairings_of_many_channels_are_summed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    x, g = images(2, (6, 9)), images(2, (6, 9), seed=5) - 0.5
    groups = get_groups("all")
    at_once = pairings(groups, g, x)
    monkeypatch.setattr("captum_lie.core.pairing.IN_CACHE", 2 * 2 * 6 * 9)  # two of three channels
    torch.testing.assert_close(pairings(groups, g, x), at_once)
    monkeypatch.setattr("captum_lie.core.pairing.IN_CACHE", 1)
    torch.testing.assert_close(pairings(groups, g, x), at_once)


class Awkward(nn.Module):
    """Keyword, tuple and dict arguments and results, None, parallel branches, a reused module."""

    class Split(nn.Module):
        def forward(self, x: Tensor, *, scale: float) -> tuple[Tensor, dict[str, Any]]:
            return x * scale, {"other": x.sin(), "nothing": None, "count": 3}

    class Join(nn.Module):
        def forward(self, a: Tensor, more: dict[str, Any]) -> Tensor:
            return a + more["other"]

    class Silent(nn.Module):
        def forward(self, x: Tensor) -> None:
            self.seen = x.shape

    def __init__(self) -> None:
        super().__init__()
        self.split, self.join, self.silent = self.Split(), self.Join(), self.Silent()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.left, self.right = nn.Conv2d(3, 4, 3, 2), nn.Conv2d(3, 4, 3, 2)
        self.unused = nn.Conv2d(3, 3, 1)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        a, more = self.split(x, scale=0.5)
        x = self.relu(self.join(a, more=more) - 0.6)
        x = self.relu(self.conv(self.conv(x))) + x
        self.silent(x)
        left, right = self.left(x), self.right(x)
        left += right
        left.mul_(right)
        return self.head(self.relu(left).mean((2, 3)))


def test_awkward_models_are_complete_too() -> None:
    torch.manual_seed(0)
    model, x = Awkward().double(), images()
    before = model(x)
    result = LayerwiseEquivarianceError(model).attribute(x, "rotation")
    assert complete(result, 1e-12)
    assert torch.equal(model(x), before)
    table = result.to_dataframe()
    assert table[table["module"] == "conv"]["call"].tolist() == [0, 1]
    assert table[table["module"] == "relu"]["call"].tolist() == [0, 1, 2]
    assert "unused" not in set(table["module"])
    assert result.resolved_share == 1


def test_gradients_are_taken_through_each_module_only() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branch = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.branch(x)

    torch.manual_seed(0)
    block = Residual().double()
    net = nn.Sequential(block, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    x, group = images(), Rotation()
    result = LayerwiseEquivarianceError(net, output_fn=None).attribute(x, group, "target", target=0)
    branch = [row.module for row in result.rows].index("0.branch")
    error = torch.func.jvp(block.branch, (x,), (group.generator(x),))[1] - group.generator(
        block.branch(x)
    )
    expected = error[:, 0].mean((1, 2))
    torch.testing.assert_close(result.contributions[branch], expected)
    # The shortcut is linear and commutes with the group: the block itself adds nothing.
    assert result.self_contributions[branch - 1].abs().max() < 1e-15


@pytest.mark.parametrize("groups", [["rotation"], ["rotation", "scale"]])
def test_what_is_added_in_place_between_two_modules_is_seen(groups: Any) -> None:
    """Its gradient is the same tensor on both sides; what it is taken at is not."""

    class Between(nn.Module):
        def __init__(self, in_place: bool) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.second = nn.Conv2d(3, 2, 3), nn.Sequential(nn.Tanh(), nn.Flatten())
            self.in_place = in_place

        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x)
            ramp = torch.linspace(0, 9, y[0, 0].numel()).to(y).reshape(y.shape[2:])
            y = y.add_(ramp) if self.in_place else y + ramp
            return self.second(y)

    x = images()
    ours, expected = (
        LayerwiseEquivarianceError(Between(in_place).double().eval()).attribute(x, groups)[0]
        for in_place in (True, False)
    )
    torch.testing.assert_close(ours.self_contributions, expected.self_contributions)
    assert bool(ours.self_contributions[0].abs().min() > 1e-6)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_blocks(reentrant: bool) -> None:
    class Checkpointed(nn.Module):
        def __init__(self, active: bool) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.stem = nn.Conv2d(3, 4, 3)
            self.block = nn.Sequential(nn.Conv2d(4, 4, 3), nn.SiLU())
            self.head = nn.Linear(4, 3)
            self.active = active

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            run = self.block
            x = checkpoint(run, x, use_reentrant=reentrant) if self.active else run(x)
            return self.head(x.mean((2, 3)))

    x = images()
    plain, saved = (
        LayerwiseEquivarianceError(Checkpointed(active).double()).attribute(
            x, "rotation", "target", target=1
        )
        for active in (False, True)
    )
    assert complete(saved, 1e-12)
    expected = dict(zip((r.module for r in plain.rows), plain.contributions, strict=True))
    for row, values in zip(saved.rows, saved.contributions, strict=True):
        torch.testing.assert_close(values, expected[row.module])
    assert saved.rows == plain.rows


def test_unknown_boundaries_are_folded_and_nothing_is_lost() -> None:
    class Odd(nn.Module):
        """Works on [H·N, C, W]: the batch is not the first axis."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Conv1d(3, 3, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            n, c, h, w = x.shape
            y = self.inner(x.permute(2, 0, 1, 3).reshape(h * n, c, w))
            return y.reshape(h, n, c, w).permute(1, 2, 0, 3)

    torch.manual_seed(0)
    net = nn.Sequential(Odd(), nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
    result = LayerwiseEquivarianceError(net).attribute(images(), "rotation")
    table: Any = result.to_dataframe().set_index("module")
    assert complete(result, 1e-12)
    assert table.loc["0.inner", "input_layout"] == "unknown"
    assert pd.isna(table.loc["0.inner", "contribution"])
    assert table.loc["0", "self_contribution"] == table.loc["0", "contribution"]
    assert result.resolved_share == 0.75


def test_layouts_can_be_overridden_by_name() -> None:
    model, x = build("resnet"), images()
    plain = LayerwiseEquivarianceError(model).attribute(x, "rotation")
    folded = LayerwiseEquivarianceError(model, layouts={"conv1": UNKNOWN}).attribute(x, "rotation")
    names = [row.module for row in plain.rows]
    i = names.index("conv1")
    assert plain.rows[i].resolved
    assert not folded.rows[i].resolved
    assert complete(folded, 1e-12)
    torch.testing.assert_close(
        folded.self_contributions[0], plain.self_contributions[0] + plain.contributions[i]
    )
    half = LayerwiseEquivarianceError(model, layouts={"conv1": (NCHW, TRIVIAL)})
    row = half.attribute(x, "rotation").rows[i]
    assert (row.input_layout, row.output_layout) == ((NCHW,), (TRIVIAL,))
    with pytest.raises(ValueError, match=r"layout nhwc given for the input of 'head'"):
        LayerwiseEquivarianceError(model, layouts={"head": NHWC}).attribute(x)


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("measure", ["aligned", "norm"])
def test_independent_of_the_batch_split_and_of_companions(size: int, measure: Any) -> None:
    model, x = build("vit"), images(3)
    method: Any = LayerwiseEquivarianceError(model)
    options = {} if measure == "aligned" else {"n_probes": 4}
    whole = method.attribute(x, ["rotation", "scale"], measure, **options)
    split = method.attribute(x, ["rotation", "scale"], measure, internal_batch_size=size, **options)
    for a, b in zip(split, whole, strict=True):
        torch.testing.assert_close(a.contributions, b.contributions)
        torch.testing.assert_close(a.total, b.total)
    alone = method.attribute(x, "scale", measure, **options)
    torch.testing.assert_close(alone.contributions, whole[1].contributions)


def test_the_table_is_the_mean_over_examples() -> None:
    result = LayerwiseEquivarianceError(build("resnet")).attribute(images(4), "rotation")
    table = result.to_dataframe()
    assert {
        "module", "type", "call", "depth", "is_leaf", "input_layout", "output_layout",
        "contribution", "self_contribution", "stderr",
    } <= set(table.columns)  # fmt: skip
    assert table["contribution"][0] == pytest.approx(result.total.mean().item())
    assert table["self_contribution"].sum() == pytest.approx(result.total.mean().item())
    assert table["stderr"][3] == pytest.approx((result.contributions[3].std() / 2).item())
    assert table["module"][0] == ""
    assert table["depth"].tolist()[:2] == [0, 1]


def test_the_plot_shows_the_self_contributions_and_their_standard_errors() -> None:
    result = LayerwiseEquivarianceError(build("resnet")).attribute(images(4), "rotation")
    axes: Any = result.plot().axes[0]
    own = result.self_contributions
    shown = own[[i for i, row in enumerate(result.rows) if row.is_leaf or own[i].any()]]
    assert len(axes.patches) == len(shown) > 8
    for bar, mean in zip(axes.patches, shown.mean(1), strict=True):
        assert bar.get_height() == pytest.approx(mean.item())
    (errors,) = (c for c in axes.collections if isinstance(c, LineCollection))
    for (low, high), values in zip(errors.get_segments(), shown, strict=True):
        assert high[1] - low[1] == pytest.approx(2 * values.std().item() / 2)  # ± std / √4
    assert axes.get_title(loc="left") == "rotation (aligned)"


def test_evaluate_averages_over_a_loader(capfd: pytest.CaptureFixture[str]) -> None:
    model, x = build("resnet"), images(5)
    method = LayerwiseEquivarianceError(model)
    (streamed,) = method.evaluate([(x[:2], 0), x[2:]], "rotation", show_progress=True)
    assert "2/2" in capfd.readouterr().err
    whole = method.attribute(x, "rotation")
    torch.testing.assert_close(streamed.contributions, whole.contributions)
    with pytest.raises(ValueError, match="no images"):
        method.evaluate([])


def test_evaluate_explains_one_output_or_each_images_own() -> None:
    model, x = build("resnet"), images(5)
    labels = torch.tensor([1, 0, 3, 3, 2])
    method = LayerwiseEquivarianceError(model)
    batches = [(x[:2], labels[:2]), (x[2:], labels[2:].tolist(), "more")]
    cases: list[tuple[Any, Any]] = [("label", labels), (3, 3), ((3,), (3,))]
    for target, at_once in cases:
        (streamed,) = method.evaluate(batches, "rotation", "target", target=target)
        whole = method.attribute(x, "rotation", "target", target=at_once)
        torch.testing.assert_close(streamed.contributions, whole.contributions)
        torch.testing.assert_close(streamed.total, whole.total)
        assert complete(streamed, 1e-12)
    by_label = method.evaluate(batches, "rotation", "target", target="label")[0].total
    expected = lie_derivative(lambda x: model(x).softmax(1), x, "rotation")[range(5), labels]
    torch.testing.assert_close(by_label, expected.detach())


@pytest.mark.parametrize(
    ("batch", "target", "error", "message"),
    [
        (lambda x: x, None, ValueError, "needs target="),
        (lambda x: x, "label", TypeError, r"must yield \(images, labels\).*got NoneType"),
        (lambda x: (x, torch.rand(2)), "label", TypeError, "whole numbers.*got torch.float32"),
        (lambda x: (x, ["cat", "dog"]), "label", TypeError, "whole numbers.*got list"),
        (lambda x: (x, torch.zeros(3).long()), "label", ValueError, r"shape \(2,\); got \(3,\)"),
        (lambda x: x, [0, 1], TypeError, "'label' for each image's own.*got list"),
        (lambda x: x, torch.tensor(1), TypeError, "got Tensor"),
        (lambda x: x, "labels", TypeError, "'label' for each.*got str"),
    ],
)
def test_targets_that_cannot_be_evaluated(
    batch: Any, target: Any, error: type[Exception], message: str
) -> None:
    method = LayerwiseEquivarianceError(build("resnet"))
    with pytest.raises(error, match=message):
        method.evaluate([batch(images())], measure="target", target=target)


@pytest.mark.parametrize(
    ("layouts", "message"),
    [
        ((None, NCHW), "output of the model.*layout trivial.*got nchw.*output_layout=.*NCHW"),
        (NHWC, "input of the model.*layout nchw.*got nhwc"),
        (UNKNOWN, "got unknown"),
    ],
)
def test_the_model_itself_has_fixed_layouts(layouts: Any, message: str) -> None:
    """The total is that of an output that stays put: no other could be summed to."""
    with pytest.raises(ValueError, match=message):
        LayerwiseEquivarianceError(build("dense"), output_fn=None, layouts={"": layouts})
    same = LayerwiseEquivarianceError(build("resnet"), layouts={"": (NCHW, TRIVIAL)})
    assert complete(same.attribute(images()), 1e-12)


def test_downsampling_carries_more_of_the_translation_error_without_blur() -> None:
    x, _ = examples.load_images(64)
    share: dict[str, float] = {}
    for name in ("cnn", "cnn_blur"):
        (result,) = LayerwiseEquivarianceError(examples.load_model(name)).evaluate(
            x.split(32), "translation_x"
        )
        table = result.to_dataframe()
        kinds = table.groupby("kind")["self_contribution"].sum()
        share[name] = kinds["pooling/downsampling"]
    assert share["cnn"] > 2 * share["cnn_blur"]


@pytest.mark.parametrize("armed", [False, True])
def test_nothing_of_the_model_is_changed(armed: bool) -> None:
    model, x = Fails().eval(), images()
    next(model.body.parameters()).requires_grad_(False)
    before = (
        model(x).detach(),
        [p.requires_grad for p in model.parameters()],
        [p.grad is None for p in model.parameters()],
    )
    model.armed = armed
    if armed:
        with pytest.raises(KeyError, match="the model failed"):
            LayerwiseEquivarianceError(model).attribute(x)
    else:
        LayerwiseEquivarianceError(model).attribute(x)
    model.armed = False
    assert torch.equal(model(x), before[0])
    assert [p.requires_grad for p in model.parameters()] == before[1]
    assert [p.grad is None for p in model.parameters()] == before[2]
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


Method: Any = LayerwiseEquivarianceError  # untyped, to call it wrongly


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m, x: Method(m).attribute(x, measure="l2"), ValueError,
         "Unknown measure 'l2'"),
        (lambda m, x: Method(m).attribute(x, measure="target"), ValueError,
         "needs target="),
        (lambda m, x: Method(m).attribute(x, target=1), ValueError,
         "target belongs to measure='target'"),
        (lambda m, x: Method(m).attribute(x, n_probes=8), ValueError,
         "belong to measure='norm'"),
        (lambda m, x: Method(m).attribute(x, measure="norm", n_probes=2),
         ValueError, "at least 4"),
        (lambda m, x: Method(m).attribute(x, measure="norm", tolerance=0.0),
         ValueError, "tolerance must be positive"),
        (lambda m, x: Method(m).attribute(x, "spin"), ValueError,
         "Unknown group"),
        (lambda m, x: Method(m).attribute(x[0]), ValueError, "unsqueeze"),
        (lambda m, x: Method(m).attribute(x / 0), ValueError, "NaN"),
        (lambda m, x: Method(m).attribute(x, internal_batch_size=0),
         ValueError, "at least 1"),
        (lambda m, x: Method(m, layouts={"cnv1": NCHW}), ValueError,
         "Unknown module 'cnv1'.*Did you mean 'conv1'"),
        (lambda m, x: Method(m, layouts={"conv1": "nchw"}), TypeError,
         "must be a Layout"),
        (lambda m, x: Method(m.forward), TypeError, "needs a torch.nn.Module"),
        (lambda m, x: Method(m.train()).attribute(x), ValueError,
         "training mode"),
    ],
)  # fmt: skip
def test_bad_input_is_explained(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(build("resnet"), images())
