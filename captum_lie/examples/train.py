"""Make the example data: train the four classifiers and cut the held-out images.

Run ``python -m captum_lie.examples.train --out DIR``; it takes a few minutes on two cores and
writes ``images.png``, ``examples.json`` and one ``NAME.safetensors`` per model. Needs scikit-image
(the ``test`` extra) for the photographs; nothing is downloaded.
Another seed moves the accuracies by about one percentage point.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn
from tqdm import tqdm

from captum_lie.examples.crops import (
    SHEET_COLUMNS,
    Source,
    crop,
    held_out,
    load_sources,
    shipped_indices,
)
from captum_lie.examples.data import (
    CLASSES,
    IMAGE_SIZE,
    METADATA_FILE,
    SHEET_FILE,
    stack_sheet,
)
from captum_lie.examples.models import MODEL_NAMES, build

STEPS = 1500


def batch(sources: Sequence[Source], size: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """A random augmented training batch: images ``[size, 3, 32, 32]`` and labels ``[size]``."""
    labels = torch.arange(size) % len(sources)
    images = torch.empty(size, 3, IMAGE_SIZE, IMAGE_SIZE)
    for label, source in enumerate(sources):
        rows = (labels == label).nonzero()[:, 0]
        chosen = torch.randint(len(source.positions), (len(rows),), generator=rng)
        images[rows] = crop(source.tiles, source.positions[chosen])

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(size, 1, 1, 1, generator=rng) * (high - low) + low

    for axis in (2, 3):
        images = torch.where(uniform(0, 1) < 0.5, images.flip(axis), images)
    # Fade colours (half the time away entirely), change contrast and brightness: a classifier
    # that counted colours would be a dull subject for questions about where things are.
    grey = images.mean(dim=1, keepdim=True)
    images = torch.lerp(grey.expand_as(images), images, uniform(-0.3, 1).clamp(min=0))
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = (images - mean) * uniform(0.7, 1.3) + mean + uniform(-0.1, 0.1)
    return images.clamp(0, 1), labels


def train(
    name: str, sources: Sequence[Source], *, steps: int, seed: int = 0, batch_size: int = 64
) -> nn.Module:
    """Train one architecture; return it in eval mode, weights rounded to float16 precision."""
    rng = torch.Generator().manual_seed(seed)
    model = build(name, len(sources), seed=seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    progress = tqdm(range(steps), desc=name, unit="step")
    for step in progress:
        images, labels = batch(sources, batch_size, rng)
        loss = F.cross_entropy(model(images), labels, label_smoothing=0.1)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        schedule.step()
        if step % 50 == 0:
            progress.set_postfix(loss=f"{loss.item():.3f}")
    return model.half().float().eval()


@torch.no_grad()
def correct(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Which of ``images`` ``[N, 3, 32, 32]`` are classified right: bool ``[N]``."""
    predictions = torch.cat([model(chunk).argmax(dim=1) for chunk in torch.split(images, 256)])
    return predictions == labels


def share(flags: Tensor) -> float:
    """The share of True in ``flags``, to four digits."""
    return round(flags.float().mean().item(), 4)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see ``--help``."""
    parser = argparse.ArgumentParser(
        prog="python -m captum_lie.examples.train",
        description="Train the four example classifiers (which photograph does a 32 x 32 crop "
        "come from?) and write their weights, the held-out images and the accuracies.",
        epilog="With --out alone this repeats what is shipped, up to rounding, which depends on "
        "the number of threads and may move an accuracy by half a percentage point. Example: "
        "python -m captum_lie.examples.train --out retrained",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write to; made if new")
    parser.add_argument("--steps", type=int, default=STEPS, help="batches a model (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and batches (%(default)s)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: what torch chooses)")
    parser.add_argument(
        "--models", nargs="+", choices=MODEL_NAMES, default=MODEL_NAMES, help="which (all)"
    )
    options = parser.parse_args(arguments)
    if options.steps < 1:
        parser.error(f"--steps must be at least 1, got {options.steps}")
    if options.threads is not None:
        torch.set_num_threads(options.threads)

    options.out.mkdir(parents=True, exist_ok=True)
    train_sources, test_sources = load_sources()
    tests = held_out(test_sources)
    kept = shipped_indices(len(CLASSES))
    shipped = tests.part(kept)
    (options.out / SHEET_FILE).write_bytes(stack_sheet(shipped.images, SHEET_COLUMNS))

    accuracies: dict[str, dict[str, float]] = {}
    grey = tests.images.mean(dim=1, keepdim=True).expand_as(tests.images)
    rows = [f"{'model':<10}{'weights':>9}{'seconds':>9}{'test':>8}{'shipped':>9}{'grey':>8}"]
    for name in options.models:
        start = time.perf_counter()
        model = train(name, train_sources, steps=options.steps, seed=options.seed)
        seconds = time.perf_counter() - start
        right = correct(model, tests.images, tests.labels)
        accuracies[name] = {
            "test": share(right),
            "shipped": share(right[kept]),
            "test_without_colour": share(correct(model, grey, tests.labels)),
        }
        weights = {
            key: value.half() if value.is_floating_point() else value
            for key, value in model.state_dict().items()
        }
        (options.out / f"{name}.safetensors").write_bytes(save(weights))
        count = sum(parameter.numel() for parameter in model.parameters())
        test, ship, colourless = accuracies[name].values()
        rows.append(
            f"{name:<10}{count:>9}{seconds:>9.0f}{test:>8.2%}{ship:>9.2%}{colourless:>8.2%}"
        )

    metadata = {
        "classes": CLASSES,
        "test_images": len(tests.labels),
        "accuracy": accuracies,
        "images": [
            {"label": int(label), "top": box.top, "left": box.left, "size": box.size}
            for label, box in zip(shipped.labels, shipped.boxes, strict=True)
        ],
    }
    text = json.dumps(metadata, indent=1).replace("\n   ", " ").replace("\n  }", " }")
    (options.out / METADATA_FILE).write_text(text + "\n", encoding="utf-8")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
