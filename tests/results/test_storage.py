"""Results in files: what is loaded equals what was saved, and damaged files say so."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from captum_lie import (
    LayerwiseEquivarianceError,
    SubnetworkEquivarianceError,
    get_groups,
    metrics,
)
from captum_lie.errors import DamagedFileError, InvalidValueError
from captum_lie.examples import load_images, load_model
from captum_lie.layerwise import LayerwiseSampledError
from captum_lie.results import LeeResult, Measurement, MetricTable, load, save
from captum_lie.results.codec import Arrays, decode, encode
from captum_lie.studies import Baselines, LayerOptions, Options, decompose, measure


def same(a: Any, b: Any) -> bool:
    """Equality through records, containers and arrays; NaN equals NaN."""
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and torch.equal(a.nan_to_num(9e9), b.nan_to_num(9e9))
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    if isinstance(a, (MetricTable, list | tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if is_dataclass(a):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    return bool(a == b) or (a != a and b != b)


@pytest.fixture(scope="module")
def measured() -> Measurement:
    images, labels = load_images(6)
    batches = [(images[:4], labels[:4]), (images[4:], labels[4:])]
    return measure(
        {"cnn": load_model("cnn")},
        batches,
        get_groups(["rotation", "brightness"]),
        Options(pictured=2),
        baselines=Baselines(["consistency", "eq_t_frac", "lee_fd"], n_samples=2),
    )


def test_a_measurement_comes_back_as_it_was(measured: Measurement, tmp_path: Path) -> None:
    path = save(measured, tmp_path / "m.safetensors")
    again = load(path, Measurement)
    assert same(again, measured)
    assert not same(again, load(save(again.models[0].lee, tmp_path / "lee"), LeeResult))
    assert save(again, tmp_path / "again").read_bytes() == path.read_bytes()
    table = measured.models[0].metrics
    assert table is not None
    assert any(r.numerical_error is not None for r in table)


def test_layers_subnetworks_and_samples_come_back(tmp_path: Path) -> None:
    images, _ = load_images(2)
    layers = decompose(
        {"vit": load_model("vit")}, [images], get_groups(["scale"]), LayerOptions(pictured=1)
    )
    again = load(save(layers, tmp_path / "layers"), Measurement)
    assert same(again, layers)
    (result,), (stored,) = layers["vit"].layers, again["vit"].layers
    assert stored.to_dataframe().equals(result.to_dataframe())
    assert {m.layout for m in again["vit"].layer_maps["scale"]}
    estimated = LayerwiseEquivarianceError(load_model("cnn")).attribute(
        images, "scale", measure="norm", n_probes=4
    )
    assert same(load(save(estimated, tmp_path / "norm"), type(estimated)), estimated)
    heads = SubnetworkEquivarianceError(load_model("cnn")).attribute(images, "scale")
    assert same(load(save(heads, tmp_path / "heads"), type(heads)), heads)
    (sampled,) = LayerwiseSampledError(load_model("cnn")).evaluate([images], "eq_t", n_samples=1)
    assert same(load(save(sampled, tmp_path / "sampled"), type(sampled)), sampled)


def test_every_metric_of_the_suite_can_be_stored(tmp_path: Path) -> None:
    images, _ = load_images(3)
    table = metrics.measure(load_model("cnn"), images, list(metrics.METRIC_NAMES), n_samples=2)
    assert same(load(save(table, tmp_path / "table"), MetricTable), table)


def test_codec_is_its_own_inverse() -> None:
    value: dict[str, Any] = {
        "a": (1, [2.5, float("nan"), float("-inf")], None, True),
        "b": {"c": torch.arange(3), "d": np.array([[1.5]]), "e": np.float64(2)},
        "f": "ü$",
    }
    arrays: Arrays = {}
    again = decode(encode(value, arrays), arrays)
    assert sorted(arrays) == ["b.c", "b.d"]
    value["b"]["e"] = 2.0
    assert same(again, value)
    with pytest.raises(TypeError, match="class object cannot be stored"):
        encode(object(), {})


def test_shared_memory_is_stored_twice(tmp_path: Path) -> None:
    whole = torch.rand(4, 2).double()
    result = LeeResult(("a", "b"), whole, control=whole, control_stderr=whole[:, :])
    assert same(load(save(result, tmp_path / "r"), LeeResult), result)


def test_damaged_files_say_so(measured: Measurement, tmp_path: Path) -> None:
    path = save(measured, tmp_path / "m")
    content = path.read_bytes()
    for bad in (content[: len(content) // 2], b"", b"not a file of this kind", content[:-1]):
        path.write_bytes(bad)
        with pytest.raises(DamagedFileError, match="damaged or cut off"):
            load(path, Measurement)
    path.write_bytes(safetensors.torch.save({"x": torch.zeros(1)}))
    with pytest.raises(DamagedFileError, match="not written by captum-lie"):
        load(path, Measurement)
    for header, message in (
        ('{"schema": 999, "content": null}', "format 999.*install a newer"),
        ('{"schema": 1, "content": {"$Unheard": {}}}', "Unheard, which this version does not know"),
        ('{"schema": 1, "content": {"$tensor": "lost"}}', "'lost' is missing"),
        ('{"schema": 1, "content": {"$LeeResult": {"groups": []}}}', "LeeResult.*not complete"),
    ):
        path.write_bytes(safetensors.torch.save({}, {"captum-lie": header}))
        with pytest.raises(DamagedFileError, match=message):
            load(path, Measurement)
    with pytest.raises(InvalidValueError, match="holds a LeeResult, not a Measurement"):
        load(save(measured.models[0].lee, path), Measurement)
    with pytest.raises(FileNotFoundError, match="No results"):
        load(tmp_path / "nothing", Measurement)
