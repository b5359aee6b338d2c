"""``captum-lie demo``: the main job on the embedded models and photographs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from captum_lie import examples
from captum_lie.cli import options as o
from captum_lie.cli.console import explained
from captum_lie.cli.finishing import finish
from captum_lie.cli.inputs import choose_device, find_models
from captum_lie.cli.sections import added_sections
from captum_lie.core.groups import get_groups
from captum_lie.studies import Baselines, Demands, Options
from captum_lie.studies.plan import Plan, carry_out
from captum_lie.studies.sources import find_images

#: Embedded images that the demo draws: galaxies, a launch tower, a cat's eye.
SHOWCASE = (131, 151, 161)

BASELINES = ("consistency", "eq_t", "eq_t_frac", "eq_r", "group_sample")
LAYER_GROUPS = ("translation_x", "rotation")


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
        shown = examples.load_images()[0][list(SHOWCASE)]
        plan = Plan(
            get_groups("all"),
            Demands(batch_size=batch_size),
            Options(seed=seed, pictured=shown, show_progress=True),
            Baselines(BASELINES, n_samples=4, most_batches=1),
            layer_groups=get_groups(LAYER_GROUPS),
            title="captum-lie demo",
            settings={"images": f"builtin ({n})", "accuracy": examples.accuracy()},
        )
        with added_sections(out) as added:
            models = find_models(list(examples.MODEL_NAMES), control=True)
            measurement = carry_out(plan, models, images, choose_device(device))
            finish(replace(measurement, sections=tuple(added())), out, json=json)
