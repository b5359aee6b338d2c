"""``captum-lie demo``: the main job on the embedded models and photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from captum_lie import examples
from captum_lie.cli import options as o
from captum_lie.cli.console import explained
from captum_lie.cli.inputs import choose_device, find_images, find_models
from captum_lie.cli.measure import run
from captum_lie.cli.sections import added_sections
from captum_lie.core.groups import get_group, get_groups

#: Embedded images that the demo draws: galaxies, a launch tower, a cat's eye.
SHOWCASE = (131, 151, 161)


def demo(
    out: o.Out = Path("captum-lie-report"),
    n: Annotated[int, typer.Option("--n", min=1, help="Number of embedded images to use.")] = 128,
    device: o.Device = None,
    batch_size: o.BatchSize = 32,
    seed: o.Seed = 0,
    json: o.AsJson = False,
) -> None:
    """Measure the four embedded models on embedded photographs: no network, under a minute.

    Compares a strided CNN, its anti-aliased twin, a small ViT and a small MLP-Mixer under all ten
    groups, each beside its untrained twin, and draws which pixels and which modules are to blame.
    Exports, quantises and audits one of them where the extra onnx is installed. Writes report.html,
    lee.csv and lee.json.
    """
    with explained():
        images = find_images("builtin", n)
        out.mkdir(parents=True, exist_ok=True)  # rather now than after the work
        with added_sections(out) as added:
            run(
                find_models(list(examples.MODEL_NAMES), control=True),
                images,
                get_groups("all"),
                out,
                device=choose_device(device),
                batch_size=batch_size,
                seed=seed,
                json=json,
                title="captum-lie demo",
                pictured=examples.load_images()[0][list(SHOWCASE)],
                baselines=["consistency", "eq_t", "eq_t_frac", "eq_r", "group_sample"],
                n_samples=4,
                baseline_batches=1,
                layer_groups=[get_group("translation_x"), get_group("rotation")],
                sections=added,
                settings={"images": f"builtin ({n})", "accuracy": examples.accuracy()},
            )
