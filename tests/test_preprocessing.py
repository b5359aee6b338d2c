"""From image files to tensors: which files, in which order, at which size."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from captum_lie.preprocessing import ImageFolder, Normalized, read_image


def write(path: Path, value: int, size: tuple[int, int] = (4, 3)) -> None:
    """An image of one grey, by which it is known again; ``size`` is (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size[::-1], (value, value, value)).save(path)


def values(folder: ImageFolder) -> list[int]:
    return [round(image[0, 0, 0].item() * 255) for batch in folder for image in batch]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Greys 0 to 22 in the order of their names, in two folders."""
    for i in range(23):
        write(tmp_path / ("a" if i < 9 else "b") / f"{i:02d}.png", i)
    (tmp_path / "a" / "notes.txt").write_text("no image")
    return tmp_path


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 11, 22])
def test_limited_images_are_spread_evenly_over_the_folder(photos: Path, limit: int) -> None:
    folder = ImageFolder(photos, batch_size=5, limit=limit)
    found = values(folder)
    assert len(found) == limit
    gaps = [after - before for before, after in pairwise([*found, 23 + found[0]])]
    assert sum(gaps) == 23  # round the folder once
    assert max(gaps) - min(gaps) <= 1
    assert [len(batch) for batch in folder] == [5] * (limit // 5) + [limit % 5] * (limit % 5 > 0)
    assert len(folder) == len(list(folder))


@pytest.mark.parametrize("limit", [None, 23, 100])
def test_every_image_in_the_order_of_the_names(photos: Path, limit: int | None) -> None:
    folder = ImageFolder(photos, batch_size=8, limit=limit)
    assert values(folder) == list(range(23))
    assert values(folder) == list(range(23))  # again


def test_unreadable_files_are_skipped_and_named_once(photos: Path) -> None:
    bad = photos / "a" / "03.png"
    bad.write_bytes(bad.read_bytes()[:40])
    folder = ImageFolder(photos)
    with pytest.warns(UserWarning, match=r"Skipped: .*03.png is not a readable image"):
        assert values(folder) == [i for i in range(23) if i != 3]
    assert list(folder.skipped) == [bad]
    assert values(folder) == [i for i in range(23) if i != 3]  # and no warning


def test_images_of_several_sizes_need_one(photos: Path) -> None:
    write(photos / "b" / "30.png", 30, (5, 3))
    with pytest.raises(ValueError, match=r"30.png is 5x3, those before 4x3.*--size HxW"):
        list(ImageFolder(photos, batch_size=8))
    (batch,) = ImageFolder(photos, size=(6, 8), batch_size=24)
    assert batch.shape == (24, 3, 6, 8)


def test_an_image_is_scaled_to_cover_a_size_and_its_middle_is_kept(tmp_path: Path) -> None:
    left, right = np.zeros((20, 30, 3), np.uint8), np.full((20, 30, 3), 255, np.uint8)
    Image.fromarray(np.concatenate([left, right], 1)).save(tmp_path / "halves.png")
    plain = read_image(tmp_path / "halves.png")
    assert plain.shape == (3, 20, 60)
    assert plain.unique().tolist() == [0, 1]
    square = read_image(tmp_path / "halves.png", (10, 10))
    assert square.shape == (3, 10, 10)
    assert square[..., :4].max() < 0.02  # half of the middle is black, half is white
    assert square[..., 6:].min() > 0.98


def test_a_normalised_model_sees_normalised_images() -> None:
    x = torch.rand(2, 3, 4, 5)
    model = Normalized(nn.Identity(), (0.1, 0.2, 0.3), (0.5,), input_size=(4, 5))
    expected = torch.stack([(x[:, i] - 0.1 * (i + 1)) / 0.5 for i in range(3)], 1)
    torch.testing.assert_close(model(x), expected)
    assert model.input_size == (4, 5)
    assert not model.state_dict()


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ((0.0,), (0.0,), "must be positive"),
        ((0.0,), (0.5, float("nan")), "must be positive and finite"),
        ((float("inf"),), (1.0,), "Means must be finite"),
        ((0.1, 0.2), (1.0, 1.0, 1.0), "one for all; got 2 and 3"),
    ],
)
def test_normalisation_that_cannot_be(
    mean: tuple[float, ...], std: tuple[float, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Normalized(nn.Identity(), mean, std)
