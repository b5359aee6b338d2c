"""Laws of layouts: where the image is in a tensor, and that nothing is guessed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from captum_lie import Rotation, Translation, layouts
from captum_lie.layerwise import LayerwiseEquivarianceError, LayerwiseResult
from captum_lie.layouts import (
    NCHW,
    NHWC,
    TRIVIAL,
    UNKNOWN,
    Evidence,
    Layout,
    find_grid,
    infer,
    inference,
)
from tests.toy_models import untyped

GRID = (3, 5)
SHAPES = [
    (NCHW, (2, 8, 3, 5)),
    (NHWC, (2, 3, 5, 8)),
    *((Layout("tokens", prefix, GRID), (2, prefix + 15, 8)) for prefix in (0, 1, 2, 5)),
    *((Layout("tokens_first", prefix, GRID), (2, 8, prefix + 15)) for prefix in (0, 1, 5)),
    *((Layout("heads", prefix, GRID), (2, 4, prefix + 15, 2)) for prefix in (0, 1, 5)),
]
SQUARE = Evidence(batch=2, image=(224, 224))
TALL = Evidence(batch=2, image=(224, 160))


@pytest.fixture
def registry() -> Iterator[None]:
    """Rules that a test registers are forgotten."""
    rules = (inference._INPUT_RULES, inference._OUTPUT_RULES, inference._INSIDE_RULES)
    copies = [dict(r) for r in rules]
    yield
    for current, copy in zip(rules, copies, strict=True):
        current.clear()
        current.update(copy)


def represent(image: Tensor, layout: Layout) -> Tensor:
    """An image ``[N, 8, 3, 5]`` written out in a layout, element by element."""
    n, channels, height, width = image.shape
    for candidate, shape in SHAPES:
        if candidate == layout:
            x = torch.randn(n, *shape[1:])
    for row in range(height):
        for column in range(width):
            token = layout.prefix + row * width + column
            for channel in range(channels):
                value = image[:, channel, row, column]
                if layout.kind == "nchw":
                    x[:, channel, row, column] = value
                elif layout.kind == "nhwc":
                    x[:, row, column, channel] = value
                elif layout.kind == "tokens":
                    x[:, token, channel] = value
                elif layout.kind == "tokens_first":
                    x[:, channel, token] = value
                else:
                    x[:, channel // 2, token, channel % 2] = value
    return x


@pytest.mark.parametrize(("layout", "shape"), SHAPES, ids=str)
def test_the_image_is_where_the_layout_says(layout: Layout, shape: tuple[int, ...]) -> None:
    image = torch.randn(2, 8, *GRID)
    assert torch.equal(layout.to_image(represent(image, layout)), image)


@pytest.mark.parametrize(("layout", "shape"), SHAPES, ids=str)
def test_there_and_back(layout: Layout, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    back = layout.from_image(layout.to_image(x), x)
    assert back.shape == x.shape
    assert torch.equal(layout.to_image(back), layout.to_image(x))
    if layout.prefix:
        assert not back.select(1 if layout.kind == "tokens" else 2, layout.prefix - 1).any() or (
            layout.kind == "tokens_first" and not back[:, :, : layout.prefix].any()
        )


@pytest.mark.parametrize(("layout", "shape"), SHAPES, ids=str)
@pytest.mark.parametrize("group", [Translation("x"), Translation("y"), Rotation()], ids=str)
def test_tokens_move_as_the_image_they_came_from(
    group: Translation | Rotation, layout: Layout, shape: tuple[int, ...]
) -> None:
    image = torch.randn(2, 8, *GRID)
    moved = layout.generator(group, represent(image, layout))
    assert torch.equal(layout.to_image(moved), group.generator(image))


def test_a_layout_that_does_not_fit_says_so() -> None:
    with pytest.raises(ValueError, match=r"\(2, 16, 8\).*tokens\[3x5\]"):
        Layout("tokens", grid=GRID).to_image(torch.zeros(2, 16, 8))
    with pytest.raises(ValueError, match="needs a grid"):
        Layout("tokens").fits(torch.zeros(2, 16, 8))
    with pytest.raises(ValueError, match="no spatial axes"):
        TRIVIAL.to_image(torch.zeros(2, 8))


def test_grids_have_the_aspect_of_the_image() -> None:
    assert find_grid(140, (224, 160)) == (14, 10)
    assert find_grid(140, (160, 224)) == (10, 14)
    assert find_grid(196, (224, 160)) is None  # a perfect square, but the image is not
    assert find_grid(197, (224, 224)) is None


@pytest.mark.parametrize("prefix", [0, 1, 2, 5])
@pytest.mark.parametrize(("evidence", "grid"), [(SQUARE, (14, 14)), (TALL, (14, 10))])
def test_prefix_tokens_are_told_from_the_grid(
    prefix: int, evidence: Evidence, grid: tuple[int, int]
) -> None:
    tokens = torch.zeros(2, prefix + grid[0] * grid[1], 190)
    expected = Layout("tokens", prefix, grid)
    assert infer(nn.LayerNorm(190), tokens, evidence, "input") == expected
    assert infer(nn.Sequential(), tokens, evidence, "input") == expected
    first = infer(nn.Sequential(), tokens.transpose(1, 2), evidence, "input")
    assert first == Layout("tokens_first", prefix, grid)


def test_grids_of_one_whole_stride_come_first() -> None:
    # 5 + 4 x 5 tokens of 14 x 14 pixels, not 1 + 4 x 6.
    found = infer(nn.LayerNorm(8), torch.zeros(2, 25, 8), Evidence(2, (56, 70)), "input")
    assert found == Layout("tokens", 5, (4, 5))


def test_outputs_lie_as_the_inputs_did() -> None:
    for source in (Layout("tokens", grid=(28, 28)), Layout("tokens_first", grid=(28, 28))):
        pooled = torch.zeros(2, 196, 256)  # 14 x 14 tokens or 16 x 16
        seen = Evidence(2, (224, 224), sources=(source,))
        found = infer(nn.Sequential(), pooled, seen, "output")
        assert found.kind == source.kind
        assert found.grid == ((14, 14) if source.kind == "tokens" else (16, 16))


def test_a_transpose_keeps_the_grid() -> None:
    seen = Evidence(2, (224, 224), sources=(Layout("tokens", grid=(7, 7)),))
    found = infer(nn.Sequential(), torch.zeros(2, 256, 49), seen, "output")  # not 16 x 16 tokens
    assert found == Layout("tokens_first", grid=(7, 7))


def test_channels_last_is_not_read_as_channels_first() -> None:
    for evidence, height, width in ((SQUARE, 14, 14), (TALL, 14, 10)):
        assert infer(nn.GELU(), torch.zeros(2, height, width, 384), evidence, "input") == NHWC
        assert infer(nn.GELU(), torch.zeros(2, 384, height, width), evidence, "input") == NCHW
    # On a tall image, swapping height and width is not a reading.
    assert infer(nn.GELU(), torch.zeros(2, 384, 10, 14), TALL, "input") == UNKNOWN


def test_channels_as_many_as_rows() -> None:
    x = torch.zeros(2, 56, 56, 56)
    assert infer(nn.Conv2d(56, 56, 1), x, SQUARE, "input") == NCHW
    assert infer(nn.LayerNorm(56), x, SQUARE, "input") == NHWC
    assert infer(nn.Linear(56, 56), x, SQUARE, "input") == NHWC
    assert infer(nn.GELU(), x, SQUARE, "input") == UNKNOWN  # not guessed
    for layout in (NCHW, NHWC):
        seen = Evidence(2, (224, 224), sources=(layout,))
        assert infer(nn.GELU(), x, seen, "output") == layout
        known = Evidence(2, (224, 224), known=layout)
        assert infer(nn.GELU(), x, known, "input") == layout
    known = Evidence(2, (224, 224), known=NCHW)
    assert infer(nn.Dropout(), x, known, "input") == NCHW
    tokens = torch.zeros(2, 196, 196)
    assert infer(nn.GELU(), tokens, SQUARE, "input") == UNKNOWN
    assert infer(nn.LayerNorm(196), tokens, SQUARE, "input") == Layout("tokens", grid=(14, 14))
    for kind in ("tokens", "tokens_first"):
        seen = Evidence(2, (224, 224), sources=(Layout(kind, grid=(14, 14)),))
        assert infer(nn.GELU(), tokens, seen, "output").kind == kind


def test_a_block_has_its_channels_where_it_normalises_them() -> None:
    x = torch.zeros(2, 50, 256)  # 1 + 7 x 7 tokens, or 16 x 16
    block = nn.Sequential(nn.Sequential(nn.LayerNorm(256)), nn.Linear(256, 256))
    assert infer(block, x, SQUARE, "input") == Layout("tokens", 1, (7, 7))
    assert infer(nn.Sequential(nn.LayerNorm(50)), x, SQUARE, "input") == UNKNOWN


def test_what_follows_an_unknown_tensor_is_not_guessed() -> None:
    x = torch.zeros(2, 98, 64)  # tokens of a grid of 7 x 14 with 64 features, not 8 x 8 tokens
    assert infer(nn.Linear(32, 64), x, Evidence(2, (224, 224), sources=(UNKNOWN,)), "output") == (
        UNKNOWN
    )
    assert infer(nn.GELU(), x, Evidence(2, (224, 224), sources=(UNKNOWN,)), "output") == UNKNOWN
    assert infer(nn.GELU(), x, Evidence(2, (224, 224), known=UNKNOWN), "input") == UNKNOWN
    seen = Evidence(2, (224, 224), known=UNKNOWN, grids=((0, (8, 8)),))
    assert infer(nn.GELU(), x, seen, "input") == Layout("tokens_first", grid=(8, 8))


def test_what_does_not_move() -> None:
    for shape in ((2, 10), (2, 64, 1, 1), (2, 1, 256)):  # 256 channels, not 16 x 16 tokens
        assert infer(nn.GELU(), torch.zeros(shape), SQUARE, "input") == TRIVIAL


def test_windows_and_attention_maps_are_unknown() -> None:
    assert infer(nn.Linear(96, 96), torch.zeros(32, 49, 96), SQUARE, "input") == UNKNOWN
    assert infer(nn.Softmax(-1), torch.zeros(2, 24, 56, 56), SQUARE, "input") == UNKNOWN
    assert infer(nn.Dropout(), torch.zeros(2, 24, 56, 56), SQUARE, "input") == UNKNOWN
    assert infer(nn.Linear(4, 4), torch.zeros(2, 196, 196, 4), SQUARE, "input") == UNKNOWN


def test_norms_of_rank_four_that_are_no_images() -> None:
    # Per-head queries, or windows: the shape does not say which.
    for shape in ((2, 3, 145, 64), (2, 16, 196, 64)):
        assert infer(nn.LayerNorm(64), torch.zeros(shape), SQUARE, "input") == UNKNOWN


@pytest.mark.usefixtures("registry")
def test_rules_hold_for_subclasses_unless_these_have_their_own() -> None:
    class Base(nn.Module):
        pass

    class Derived(Base):
        pass

    x = torch.zeros(2, 56, 56, 56)
    layouts.register(Base, input=NHWC)
    assert infer(Derived(), x, SQUARE, "input") == NHWC
    layouts.register(Derived, input=lambda module, x, evidence: NCHW)
    assert infer(Derived(), x, SQUARE, "input") == NCHW
    assert infer(Base(), x, SQUARE, "input") == NHWC


@pytest.mark.usefixtures("registry")
def test_rules_for_everything_within_a_module() -> None:
    class Scrambled(nn.Module):
        pass

    layouts.register(Scrambled, inside=UNKNOWN)
    x = torch.zeros(2, 196, 96)
    within = Evidence(2, (224, 224), ancestors=(nn.Sequential(), Scrambled()))
    assert infer(nn.LayerNorm(96), x, within, "input") == UNKNOWN
    assert infer(nn.LayerNorm(96), x, SQUARE, "input").moves


class Windowed(nn.Module):
    """A linear map within windows of 2 × 2, where the batch axis is not that of the examples."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        windows = x.reshape(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).flatten(4)
        mixed = self.mix(windows.flatten(0, 2)).unflatten(0, (n, h // 2, w // 2))
        return mixed.unflatten(-1, (2, 2)).permute(0, 3, 1, 4, 2, 5).reshape(x.shape)


class Head(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.square().mean((2, 3))


def windowed() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), Windowed(), nn.Tanh(), Head()).double()


def decompose(
    model: nn.Module, overrides: dict[str, Layout | tuple[Layout | None, Layout | None]]
) -> LayerwiseResult:
    torch.manual_seed(1)
    images = torch.rand(2, 3, 8, 12, dtype=torch.float64)
    return LayerwiseEquivarianceError(model.eval(), layouts=overrides).attribute(images)


def test_unknown_boundaries_fold_into_what_surrounds_them() -> None:
    result = decompose(windowed(), {})
    table = {row.module: (i, row) for i, row in enumerate(result.rows)}
    assert not table["1.mix"][1].resolved
    assert result.rows[table["1.mix"][1].parent].module == "1"
    i = table["1"][0]
    assert torch.equal(result.self_contributions[i], result.contributions[i])
    torch.testing.assert_close(result.self_contributions.nansum(0), result.total)


def test_overrides_take_effect_and_move_blame_only() -> None:
    plain = decompose(windowed(), {})
    folded = decompose(windowed(), {"1": (None, UNKNOWN)})
    rows = {row.module: (i, row) for i, row in enumerate(folded.rows)}
    assert not rows["1"][1].resolved
    assert rows["1"][1].output_layout == (UNKNOWN,)
    torch.testing.assert_close(
        folded.self_contributions[0],
        plain.self_contributions[0] + plain.contributions[rows["1"][0]],
    )
    transposed = decompose(windowed(), {"2": NHWC})
    names = [row.module for row in transposed.rows]
    assert transposed.rows[names.index("2")].input_layout == (NHWC,)
    i = names.index("2")
    assert not torch.allclose(transposed.contributions[i], plain.contributions[i])
    torch.testing.assert_close(transposed.self_contributions.nansum(0), plain.total)


def test_overrides_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match=r"tokens\[3x5\].*'2'.*\(2, 6, 8, 12\)"):
        decompose(windowed(), {"2": Layout("tokens", grid=GRID)})
    with pytest.raises(ValueError, match="nowhere"):
        decompose(windowed(), {"nowhere": NCHW})
    with pytest.raises(TypeError, match="must be a Layout"):
        LayerwiseEquivarianceError(windowed(), layouts={"2": untyped("nchw")})
