"""Rows hold layouts, tables print them, and drawings ask them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from captum_lie.layouts import NCHW, NHWC, TRIVIAL, UNKNOWN, Layout, regrouped
from captum_lie.results import leading_calls
from captum_lie.results.layerwise import LayerwiseResult
from captum_lie.results.rows import Row, check_same_rows

TOKENS = Layout("tokens", 1, (2, 3))
ROW = Row("stem", "Conv2d", "convolution", 0, 1, True, True, (NCHW,), (NCHW,), 0)


def result_of(rows: list[Row]) -> LayerwiseResult:
    contributions = torch.arange(1.0, len(rows) + 1)[:, None].expand(-1, 2)
    total = contributions.sum(0)
    return LayerwiseResult(
        rows, "rotation", "aligned", total, contributions, contributions, None, ""
    )


def test_tables_print_each_layout_once() -> None:
    rows = [
        replace(ROW, input_layout=(NCHW, NCHW, TOKENS), output_layout=(TRIVIAL,)),
        replace(ROW, input_layout=(), output_layout=(UNKNOWN, NCHW, UNKNOWN)),
    ]
    table = result_of(rows).to_dataframe()
    assert list(table["input_layout"]) == ["nchw, tokens[1+2x3]", "none"]
    assert list(table["output_layout"]) == ["trivial", "unknown, nchw"]
    order = ["depth", "is_leaf", "input_layout", "output_layout", "parent", "contribution"]
    assert list(table.columns)[4:10] == order


def test_calls_with_one_moving_layout_can_be_drawn() -> None:
    windows = regrouped("(n y0 x0) (y1 x1) c", (2, 2), (2, 2))
    outputs: dict[str, tuple[Layout, ...]] = {
        "image": (NCHW,),
        "tokens": (TOKENS,),
        "windows": (windows,),
        "twice": (NHWC, NHWC),
        "two": (NCHW, NHWC),
        "scores": (TRIVIAL,),
        "nothing": (),
    }
    rows = [replace(ROW, module=name, output_layout=each) for name, each in outputs.items()]
    rows += [
        replace(ROW, module="container", is_leaf=False),
        replace(ROW, module="folded", resolved=False),
    ]
    drawn = [name for name, _ in leading_calls(result_of(rows))]
    assert drawn == ["image", "tokens", "windows", "twice"]
    assert leading_calls(result_of(rows), most=1) == [("twice", 0)]


def test_batches_whose_layouts_differ_are_not_joined() -> None:
    other = replace(ROW, output_layout=(Layout("tokens", 1, (3, 2)),))
    check_same_rows([[ROW], [replace(ROW, output_layout=(Layout("nchw"),))]])
    with pytest.raises(ValueError, match="layouts differ"):
        check_same_rows([[ROW], [other]])
