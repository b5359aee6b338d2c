"""From files, stacks and data sets to what a model sees; labels to what it answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from captum_lie.images import (
    Batches,
    ImageFiles,
    ImageFolder,
    ImageStack,
    View,
    match_labels,
    open_images,
    read_image,
    view_of,
)
from tests.toy_models import untyped

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


@pytest.mark.parametrize("size", [(8, 8), (24, 12), (20, 40)])
@pytest.mark.parametrize("crop", [1.0, 0.8])
@pytest.mark.parametrize("mode", ["center", "squash"])
def test_bytes_and_tensors_are_cut_alike(size: tuple[int, int], crop: float, mode: str) -> None:
    view = View(size, crop, "bilinear", untyped(mode))
    tensor = torch.from_numpy(PIXELS).permute(2, 0, 1).float() / 255
    from_bytes, from_floats = view(Image.fromarray(PIXELS)), view(tensor)
    assert from_bytes.shape == (3, *size)
    # Pillow rounds bytes after each of its two passes.
    torch.testing.assert_close(from_bytes, from_floats, atol=1.5 / 255, rtol=0)


def test_the_middle_is_kept_and_proportions_with_it() -> None:
    ramp = torch.linspace(0, 1, 101).expand(1, 51, 101)
    found = View((51, 51))(ramp)
    torch.testing.assert_close(found[0, 0], torch.linspace(0.25, 0.75, 51), atol=1e-6, rtol=0)
    half = View((50, 50), crop=0.5, interpolation="bilinear")(ramp)  # the middle of 100 x 198
    place = ((74 + torch.arange(50) + 0.5) * 101 / 198 - 0.5) / 100
    torch.testing.assert_close(half[0, 0], place, atol=1e-5, rtol=0)
    squashed = View((51, 51), mode="squash", interpolation="bilinear")(ramp)
    assert squashed[0, 0, 0] < 0.01
    assert squashed[0, 0, -1] > 0.99


def test_grey_and_colour_on_demand() -> None:
    colour = Image.fromarray(PIXELS)
    grey = View(channels=1)(colour)
    torch.testing.assert_close(
        grey, View(channels=1)(View()(colour)), atol=1 / 255, rtol=0
    )  # Pillow's grey is ours
    back = View(channels=3)(grey)
    assert torch.equal(back[0], back[2])
    assert View(channels=1)(torch.rand(5, 4, 4)).shape == (5, 4, 4)  # neither applies
    assert view_of(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 3, 3))).channels == 1
    assert view_of(nn.Conv2d(7, 4, 3)).channels is None


def test_deep_images_keep_their_depth(tmp_path: Path) -> None:
    deep = np.arange(0, 60000, 5000, dtype=np.uint16).reshape(3, 4)
    Image.fromarray(deep).save(tmp_path / "xray.png")
    found = read_image(tmp_path / "xray.png", channels=1)
    torch.testing.assert_close(found[0], torch.from_numpy(deep / 65535).float())
    assert read_image(tmp_path / "xray.png").shape == (3, 3, 4)


def test_pages_are_channels(tmp_path: Path) -> None:
    bands = [Image.fromarray(np.full((4, 6), 50 * i, np.uint8)) for i in range(5)]
    bands[0].save(tmp_path / "bands.tif", save_all=True, append_images=bands[1:])
    found = read_image(tmp_path / "bands.tif", (4, 4))
    assert found.shape == (5, 4, 4)
    torch.testing.assert_close(found[:, 1, 1], torch.arange(5) * 50 / 255)
    bands[0].save(tmp_path / "bands.tif", save_all=True, append_images=[Image.new("L", (5, 5))])
    with pytest.raises(OSError, match=r"bands.tif .* its 2 pages differ in size"):
        read_image(tmp_path / "bands.tif")


@pytest.mark.parametrize("ending", ["npy", "npz", "pt"])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_stacks(tmp_path: Path, ending: str, dtype: str) -> None:
    bytes_ = PIXELS.transpose(2, 0, 1)[:, None]  # three grey images
    images = bytes_ if dtype == "uint8" else (bytes_ / 255).astype(dtype)
    labels = np.array([4, 0, 1])
    file = tmp_path / f"stack.{ending}"
    if ending == "npy":
        np.save(file, images[:, 0])
    elif ending == "npz":
        np.savez(file, images=images, labels=labels)
    else:
        torch.save({"images": torch.from_numpy(images), "labels": torch.from_numpy(labels)}, file)
    source = open_images(file, limit=2)
    assert source.labels == (None if ending == "npy" else [4, 0])
    (batch,) = Batches(source)
    assert isinstance(batch, torch.Tensor)
    torch.testing.assert_close(batch, torch.from_numpy(bytes_[:2] / 255).float())


def test_stacks_that_cannot_be_used_say_why(tmp_path: Path) -> None:
    def refused(match: str, **arrays: Any) -> None:
        np.savez(tmp_path / "bad.npz", **arrays)
        with pytest.raises((ValueError, TypeError), match=match):
            open_images(tmp_path / "bad.npz")

    refused("bad.npz has no entry 'images'; it holds a, b", a=[1], b=[2])
    wide = PIXELS[None, ..., 0].astype("float32")
    wide[0, 0, :2] = 0, 255
    refused(r"must lie in \[0, 1\]; got values from 0 to 255", images=wide)
    refused(r"channels first; got \(1, 20, 30, 3\)", images=PIXELS[None])
    refused(r"\[N, C, H, W\] or \[N, H, W\]; got \(20, 30\)", images=PIXELS[..., 0])
    refused(
        "floats in .* or bytes .*; got an array of int64", images=PIXELS[None, ..., 0].astype(int)
    )
    refused("1 images but 2 labels", images=PIXELS[None, ..., 0], labels=[1, 2])
    refused("one class index or name", images=PIXELS[None, ..., 0], labels=[0.5])
    (tmp_path / "evil.pt").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    with pytest.raises(ValueError, match=r"evil.pt cannot be read"):
        open_images(tmp_path / "evil.pt")
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(ValueError, match=r"objects.npy cannot be read"):
        open_images(tmp_path / "objects.npy")
    with pytest.raises(FileNotFoundError, match=r"no file .*none.npz"):
        open_images(tmp_path / "none.npz")


def test_lists_of_files(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{name}.png")
    listed = tmp_path / "list.txt"
    listed.write_text("# chosen\nc.png\tcat\n\na.png\t3\n")
    source = open_images(listed)
    assert isinstance(source, ImageFiles)
    assert [path.name for path in source.paths] == ["c.png", "a.png"]
    assert source.labels == ["cat", 3]
    for content, error, match in (
        ("c.png\nnone.png\n", FileNotFoundError, "no file .*none.png .from .*list.txt"),
        ("c.png\tcat\na.png\n", ValueError, "some images a class and some none"),
        ("# nothing\n", ValueError, "names no image"),
    ):
        listed.write_text(content)
        with pytest.raises(error, match=match):
            open_images(listed)


def test_folders_of_classes(tmp_path: Path) -> None:
    for name in ("dog", "cat/inner", "cat"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name / "0.png")
    assert ImageFiles.below(tmp_path).labels == ["cat", "cat", "dog"]
    Image.new("RGB", (4, 4)).save(tmp_path / "stray.png")
    assert ImageFiles.below(tmp_path).labels is None
    assert [p.name for p in ImageFolder(tmp_path, limit=2).paths] == ["0.png", "0.png"]


def test_datasets(tmp_path: Path) -> None:
    file = tmp_path / "data.py"
    file.write_text(
        "import torch\nfrom PIL import Image\n"
        "class Pairs:\n"
        "    classes = ['zero', 'one']\n"
        "    def __len__(self): return 4\n"
        "    def __getitem__(self, i): return Image.new('RGB', (6, 4), (0, i, 0)), i % 2\n"
        "def pairs(): return Pairs()\n"
        "def plain(): return [torch.rand(1, 4, 4) for _ in range(3)]\n"
        "def number(): return 3\n"
        "def wide(): return [torch.rand(2, 3, 4, 4)]\n"
    )
    source = open_images(f"{file}:pairs", limit=3)
    assert source.labels == [0, 1, 0]
    assert source.classes == ["zero", "one"]
    assert source.read(2, View((2, 2)))[1].unique().tolist() == [pytest.approx(2 / 255)]
    assert open_images(f"{file}:plain").labels is None
    with pytest.raises(TypeError, match=r"a torch Dataset with a length .* got int"):
        open_images(f"{file}:number")
    with pytest.raises(ValueError, match=r"image 0 of .*wide: images must be \[C, H, W\]"):
        open_images(f"{file}:wide").read(0, View())


def test_labels_meet_classes() -> None:
    classes = ("tabby, tabby cat, n02123045", "crane, bird", "crane, machine", "Tiger_cat")
    matched, how = match_labels(["n02123045", "tiger cat", "bird"], 4, classes=classes)
    assert matched is not None
    assert matched.tolist() == [0, 3, 1]
    assert how == "matched by name"
    assert match_labels(["crane"], 4, classes=classes)[0] is None  # which of them?
    labels, _ = match_labels(["2", "0"], 4, classes=classes)
    assert labels is not None
    assert labels.tolist() == [2, 0]
    assert match_labels([7], 4)[1] == "cannot be matched: the model has 4 outputs, and a label is 7"
    by_order = match_labels(["b", "a", "b"], 2)
    assert by_order[0] is not None
    assert by_order[0].tolist() == [1, 0, 1]
    assert "alphabetical" in by_order[1]
    assert match_labels(["b", "a"], 3)[0] is None
    # Numbers of the data set's own classes are not numbers of outputs.
    renamed = match_labels([0, 1], 4, names=["tiger cat", "bird"], classes=classes)[0]
    assert renamed is not None
    assert renamed.tolist() == [3, 1]
    assert match_labels([0, 1], 4, names=["tiger cat", "bird"])[0] is None


def test_broken_files_are_named_once_and_labels_follow(tmp_path: Path) -> None:
    for i in range(3):
        Image.new("RGB", (4, 4), (i, 0, 0)).save(tmp_path / f"{i}.png")
    (tmp_path / "1.png").write_bytes(b"")
    files = ImageFiles.below(tmp_path)
    first, second = (
        Batches(files, View(size), 2, torch.tensor([5, 6, 7])) for size in (None, (2, 2))
    )
    with pytest.warns(UserWarning, match="1.png is not a readable image") as caught:
        batches = [*first, *second]
    images, labels = batches[0]
    assert len(caught) == 1
    assert labels.tolist() == [5, 7]
    torch.testing.assert_close(images[:, 0, 0, 0], torch.tensor([0.0, 2 / 255]))
    assert list(files.skipped) == [tmp_path / "1.png"]


def test_stack_of_any_number_of_channels_reaches_the_model() -> None:
    (batch,) = Batches(ImageStack(torch.rand(2, 7, 9, 9)), View((4, 6)))
    assert isinstance(batch, torch.Tensor)
    assert batch.shape == (2, 7, 4, 6)
