"""Laws of patterns: they say where every pixel is, and only what can be is accepted."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from copy import deepcopy
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from captum_lie.errors import InvalidTypeError, InvalidValueError
from captum_lie.layouts import NCHW, NHWC, TRIVIAL, UNKNOWN, Layout, Pattern, regrouped


@st.composite
def patterns(draw: st.DrawFn) -> Pattern:
    """Any order and grouping of up to two channel factors, three rows' and three columns'."""
    sizes = {
        letter: tuple(draw(st.lists(st.integers(1, 3), min_size=least, max_size=most)))
        for letter, least, most in (("y", 1, 3), ("x", 1, 3), ("c", 0, 2))
    }
    names = [f"{letter}{i}" for letter, each in sizes.items() for i in range(len(each))]
    order = ["n", *draw(st.permutations(names))]
    axes = [order[:1]]
    for name in order[1:]:
        if draw(st.booleans()):
            axes.append([])
        axes[-1].append(name)
    steps = st.integers(-3, 3)
    return Pattern(
        " ".join(f"({' '.join(axis)})" for axis in axes),
        sizes["y"],
        sizes["x"],
        sizes["c"],
        shift=(draw(steps), draw(steps)),
    )


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    named = st.sampled_from(["tokens", "tokens_first", "heads"])
    sides = st.integers(1, 5)
    return draw(
        st.one_of(
            st.sampled_from([NCHW, NHWC, TRIVIAL, UNKNOWN]),
            st.builds(Layout, named, st.integers(0, 5), st.tuples(sides, sides)),
            st.builds(Layout, patterns()),
            st.builds(
                regrouped,
                st.sampled_from(["n (x0 y0) c", "n c (y0 x0)", "n c0 (x0 y0) c1"]),
                st.tuples(sides),
                st.tuples(sides),
                prefix=st.integers(0, 2),
            ),
        )
    )


def axes_of(pattern: Pattern) -> list[list[str]]:
    axes = pattern.axes.replace("(", " ( ").replace(")", " ) ").split()
    found: list[list[str]] = []
    inside = False
    for word in axes:
        if word == "(":
            found.append([])
        if word in "()":
            inside = word == "("
        elif inside:
            found[-1].append(word)
        else:
            found.append([word])
    return found


def written(image: Tensor, pattern: Pattern) -> Tensor:
    """An image written out in a pattern, pixel by pixel."""
    n, channels, height, width = image.shape
    many = {"y": pattern.height, "x": pattern.width, "c": pattern.channels}
    size = {f"{letter}{i}": s for letter, each in many.items() for i, s in enumerate(each)}
    size["n"] = n
    axes = axes_of(pattern)
    x = torch.full([int(torch.tensor([size[f] for f in axis]).prod()) for axis in axes], torch.nan)
    for place in product(range(n), range(channels), range(height), range(width)):
        rolled = {
            "n": place[0],
            "c": place[1],
            "y": (place[2] + pattern.shift[0]) % height,
            "x": (place[3] + pattern.shift[1]) % width,
        }
        digit = {"n": rolled["n"]}
        for letter, each in many.items():
            rest = rolled[letter]
            for i in reversed(range(len(each))):
                rest, digit[f"{letter}{i}"] = divmod(rest, each[i])
        index = []
        for axis in axes:
            at = 0
            for factor in axis:
                at = at * size[factor] + digit[factor]
            index.append(at)
        x[tuple(index)] = image[place]
    return x


@settings(max_examples=60, deadline=None)
@given(patterns())
def test_every_pixel_is_where_the_pattern_says(pattern: Pattern) -> None:
    channels = int(torch.tensor(pattern.channels).prod()) if pattern.channels else 1
    grid = pattern.grid
    assert grid is not None
    image = torch.rand(2, channels, *grid)
    x, layout = written(image, pattern), Layout(pattern)
    assert torch.equal(layout.to_image(x), image)
    assert torch.equal(layout.from_image(image, x), x)
    assert (layout.examples(x), layout.extent(x)) == (2, grid)


@settings(max_examples=100, deadline=None)
@given(layouts())
def test_there_and_back_through_json(layout: Layout) -> None:
    text = json.dumps(layout.to_dict())
    back = Layout.from_dict(json.loads(text))
    assert back == layout
    assert hash(back) == hash(layout)
    assert str(back) == str(layout)
    assert json.dumps(back.to_dict()) == text


@given(layouts(), layouts())
def test_equal_layouts_are_written_alike_and_others_are_not(one: Layout, other: Layout) -> None:
    assert (one == other) == (one.to_dict() == other.to_dict())
    assert (one == other) == (str(one) == str(other) and one.pattern == other.pattern)


@pytest.mark.parametrize("copied", [deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_are_equal(copied: Callable[[Layout], Layout]) -> None:
    windows = regrouped("(n y0 x0) (y1 x1) c", (2, 2), (3, 2), shift=(-1, 0))
    for layout, shape in (
        (windows, (12, 4, 5)),
        (Layout("heads", 1, (2, 3)), (2, 3, 7, 5)),
        (TRIVIAL, (2,)),
    ):
        x = torch.rand(shape)
        before = layout.fits(x)  # something is remembered of the shape
        back = copied(layout)
        assert (back, hash(back), back.fits(x)) == (layout, hash(layout), before)


@pytest.mark.parametrize(
    ("layout", "printed"),
    [
        (NCHW, "nchw"),
        (NHWC, "nhwc"),
        (TRIVIAL, "trivial"),
        (UNKNOWN, "unknown"),
        (Layout("tokens", grid=(2, 3)), "tokens[2x3]"),
        (Layout("tokens", 1, (2, 3)), "tokens[1+2x3]"),
        (Layout("tokens_first", 5, (2, 3)), "tokens_first[5+2x3]"),
        (Layout("heads", 1, (2, 3)), "heads[1+2x3]"),
        (
            regrouped("(n y0 x0) (y1 x1) c", (2, 7), (3, 7)),
            "regrouped[14x21: (n y0 x0) (y1 x1) c]",
        ),
        (
            regrouped("n (y0 x0) c", (2,), (3,), shift=(-1, 2)),
            "regrouped[2x3: n (y0 x0) c rolled -1 +2]",
        ),
        (regrouped("n (x0 y0) c", (2,), (3,), prefix=1), "regrouped[1+2x3: n (x0 y0) c]"),
        (Layout(Pattern("n x y c")), "regrouped[n x y c]"),
    ],
    ids=str,
)
def test_how_layouts_are_printed(layout: Layout, printed: str) -> None:
    assert str(layout) == printed


def test_patterns_that_have_a_name_are_the_named_layouts() -> None:
    assert Layout(Pattern("n c y x")) == NCHW
    assert Layout(Pattern(" n  y (x) c ")) == NHWC  # as it is spelled
    assert regrouped("n (y0 x0) c", (2,), (3,)) == Layout("tokens", grid=(2, 3))
    assert Layout(Pattern("n c (y0 x0)", (2,), (3,), prefix=1)) == Layout("tokens_first", 1, (2, 3))
    assert Layout(Pattern("n c0 (y0 x0) c1", (2,), (3,))).kind == "heads"
    assert len({NCHW, Layout("nchw"), Layout(Pattern("n c y x"))}) == 1
    assert TRIVIAL != UNKNOWN


def test_an_image_is_the_simplest_regrouping() -> None:
    image = torch.rand(2, 4, 6, 8)
    for layout in (
        regrouped("n c y0 x0", (6,), (8,)),
        regrouped("n c (y0 y1) (x0 x1)", (3, 2), (2, 4)),
        regrouped("n (c0 c1) y0 x0", (6,), (8,), channels=(2, 2)),
    ):
        assert torch.equal(layout.to_image(image), NCHW.to_image(image))
        assert layout.kind == "regrouped"  # of one size only
        assert not layout.fits(image[..., 1:])
    assert NCHW.to_image(image) is image
    assert NCHW.from_image(image, image) is image


@pytest.mark.parametrize(
    ("layout", "shape"),
    [
        (NHWC, (2, 3, 4, 5)),
        (Layout("tokens", 1, (3, 4)), (2, 13, 5)),
        (Layout("tokens_first", 1, (3, 4)), (2, 5, 13)),
        (regrouped("n (y0 y1) (x0 x1) c", (3, 2), (2, 2)), (2, 6, 4, 5)),
    ],
    ids=str,
)
def test_images_are_views_where_they_can_be(layout: Layout, shape: tuple[int, ...]) -> None:
    x = torch.rand(shape)
    layout.to_image(x).zero_()
    assert not x.sum() > 13 * 5 * 2 * 0.2  # all but prefix tokens
    assert torch.equal(layout.from_image(layout.to_image(x), x), torch.zeros_like(x))


def test_prefix_tokens_stay_where_the_image_is_transformed() -> None:
    x = torch.rand(2, 5, 3)
    layout = Layout("tokens", prefix=1, grid=(2, 2))
    turned = layout.transform(x, lambda image: image.flip(-1))
    assert torch.equal(turned[:, 0], x[:, 0])
    assert torch.equal(turned[:, 1:], x[:, [2, 1, 4, 3]])
    assert torch.equal(layout.transform(x, lambda image: image), x)
    assert TRIVIAL.transform(x, lambda image: image + 1) is x
    with pytest.raises(ValueError, match="unknown has no spatial axes"):
        UNKNOWN.transform(x, lambda image: image)


# As those call them who check no types.
any_layout: Any = Layout
any_pattern: Any = Pattern
INVALID: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: any_layout("nwhc"), InvalidValueError, "Unknown layout 'nwhc'.*'nhwc'"),
    (lambda: any_layout("regrouped"), InvalidValueError, r"make it by regrouped\("),
    (lambda: any_layout("tokens"), InvalidValueError, r"needs a grid: Layout\('tokens', grid="),
    (lambda: any_layout("heads", 1), InvalidValueError, "needs a grid"),
    (lambda: any_layout("nchw", grid=(2, 3)), InvalidValueError, r"neither.*grid=\(2, 3\).*Leave"),
    (
        lambda: any_layout("trivial", prefix=1),
        InvalidValueError,
        "neither.*prefix=1.*Leave them out",
    ),
    (
        lambda: any_layout("tokens", -1, (2, 3)),
        InvalidValueError,
        r"prefix.*at least 0; got \(-1,\)",
    ),
    (lambda: any_layout("tokens", 0, (2, 0)), InvalidValueError, r"grid.*at least 1; got \(2, 0\)"),
    (lambda: any_layout("tokens", 0, (2, 3, 4)), InvalidValueError, "grid must be 2 numbers"),
    (lambda: any_layout("tokens", 0, (2, 1.5)), InvalidTypeError, "whole numbers; got"),
    (lambda: any_layout("tokens", 1.0, (2, 3)), InvalidTypeError, "whole numbers; got"),
    (lambda: any_layout("tokens", 0, 6), InvalidTypeError, "whole numbers; got 6"),
    (
        lambda: any_layout(any_pattern("n c y x"), prefix=1),
        InvalidValueError,
        "Give them to the pattern",
    ),
    (lambda: any_pattern(""), InvalidValueError, "n, which comes first"),
    (lambda: any_pattern("() n c y x"), InvalidValueError, "n, which comes first"),
    (lambda: any_pattern("n (c y x"), InvalidValueError, "its factors must be"),
    (lambda: any_pattern("n ((y) x) c"), InvalidValueError, "its factors must be"),
    (lambda: any_pattern("n c c0 y x", channels=(2,)), InvalidValueError, "each once"),
    (lambda: any_pattern("n c y", ()), InvalidValueError, "it needs a y and an x"),
    (
        lambda: any_pattern("n (y x) c"),
        InvalidValueError,
        "one factor without a size.*number y and x",
    ),
    (
        lambda: any_pattern("n c y x", (2,), (3,)),
        InvalidValueError,
        "every y needs a height.*without",
    ),
    (lambda: any_pattern("n y1 x0 c", (2,), (3,)), InvalidValueError, "every y needs a height"),
    (lambda: any_pattern("n c y x", prefix=1), InvalidValueError, "1 prefix tokens need an axis"),
    (
        lambda: regrouped("(n y0 x0) (y1 x1) c", (2, 2), (2, 2), prefix=1),
        InvalidValueError,
        "prefix tokens need an axis of all y and x",
    ),
    (lambda: any_pattern("n c y x", shift=(1,)), InvalidValueError, "shift must be 2 numbers"),
    (lambda: any_pattern("n c y0 x0", (0,), (3,)), InvalidValueError, "height.*at least 1"),
    (lambda: any_pattern(3), InvalidTypeError, "axes are a string; got 3"),
]


@pytest.mark.parametrize(("build", "error", "message"), INVALID)
def test_what_cannot_be_is_refused(
    build: Callable[[], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        build()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "Unknown layout 'None'|Unknown layout None"),
        ({"kind": "tokens"}, "needs a grid"),
        ({"kind": "tokens", "size": [2, 3]}, "cannot be read.*size.*another version"),
        ({"kind": "regrouped"}, "cannot be read.*axes"),
        ({"kind": "regrouped", "axes": "n (y0 x0)"}, "every y needs a height"),
    ],
)
def test_fields_that_are_no_layout_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        Layout.from_dict(fields)


def test_a_tensor_of_another_shape_is_told_which_it_needs() -> None:
    with pytest.raises(
        InvalidValueError, match=r"\(2, 8, 4\).*tokens\[1\+2x3\].*\[N, 1 \+ 2·3, C\]"
    ):
        Layout("tokens", 1, (2, 3)).to_image(torch.zeros(2, 8, 4))
    for shape in ((2, 1, 4), (2, 0, 4), (2, 13, 4), (2, 7)):
        assert not Layout("tokens", 1, (2, 3)).fits(torch.zeros(shape))
    assert Layout("tokens", 1, (2, 3)).fits(torch.zeros(0, 7, 4))
    tall = Layout(Pattern("n (y x0) c", width=(3,), prefix=4))  # of any height
    assert tall.extent(torch.zeros(2, 10, 5)) == (2, 3)
    assert not tall.fits(torch.zeros(2, 1, 5))
    assert TRIVIAL.fits(torch.zeros(2))
    assert not UNKNOWN.fits(torch.zeros(2))
    with pytest.raises(InvalidValueError, match="trivial has no spatial axes"):
        TRIVIAL.extent(torch.zeros(2, 3))
