"""Every task by every way there is, for seven models, in one table.

    python -m tests.benchmarks --model resnet50 --csv benchmarks.csv

Random weights, the ways taken in turn in one process, medians of repeated runs. Ratios are to the
task's limit: for ``groups`` the cheaper of a stacked and a looped forward pass over eight times the
images; for ``layers`` a forward and a backward pass; for ``pixels`` two forward passes and a
backward pass; for ``relative`` a forward pass over the images.
``python -m tests.benchmarks.growth`` draws how time grows. Needs the extra ``timm``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from tests.benchmarks.measuring import compare
from tests.benchmarks.tasks import PROBES, TASKS, limit_of

MODELS = (
    "resnet50",
    "tf_efficientnet_lite0",
    "convnext_tiny",
    "vit_tiny_patch16_224",
    "vit_small_patch16_224",
    "swin_tiny_patch4_window7_224",
    "mixer_s16_224",
)


def model_of(name: str) -> nn.Module:
    """A timm model whose derivatives are not zero for want of training."""
    import timm

    torch.manual_seed(0)
    model: nn.Module = timm.create_model(name, pretrained=False).eval()
    for parameter in model.parameters():
        if not parameter.any():  # such as the head of a mixer
            nn.init.normal_(parameter, std=0.02)
    return model


def rows(name: str, task: str, batch: int, size: int, repeats: int) -> list[dict[str, object]]:
    """A row for each way of one task and model."""
    model = model_of(name)
    x = torch.rand(batch, 3, size, size)
    costs = compare(TASKS[task](model, x), repeats)
    seconds = {method: cost.seconds for method, cost in costs.items()}
    limit = limit_of(task, seconds)
    found: list[dict[str, object]] = [
        {
            "model": name,
            "task": task,
            "method": method,
            "seconds": cost.seconds,
            "ratio": cost.seconds / limit,
            "peak_mib": cost.memory,
            "system_time": cost.system,
        }
        for method, cost in costs.items()
    ]
    if task == "layers":
        paper, nine = seconds[f"the paper's, {PROBES} probes"], seconds["ours, nine groups"]
        derived = {
            "ours, a further group": (nine - seconds["ours"]) / 8,
            "the paper's, 100 probes (scaled)": paper / PROBES * 100,
        }
        found += [
            {"model": name, "task": task, "method": m, "seconds": s, "ratio": s / limit}
            for m, s in derived.items()
        ]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", action="append", help="timm name; repeat for several")
    parser.add_argument("--task", action="append", choices=list(TASKS), help="default: all")
    parser.add_argument("--images", type=int, help="by default 8 for relative, else 1")
    parser.add_argument("--size", type=int, default=224, help="pixels a side")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--csv", type=Path, help="write the table here")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    table: list[dict[str, object]] = []
    for name in options.model or MODELS:
        for task in options.task or TASKS:
            batch = options.images or (8 if task == "relative" else 1)
            new = rows(name, task, batch, options.size, options.repeats)
            print(pd.DataFrame(new).round(3).to_string(index=False), flush=True)
            table += new
            if options.csv:
                pd.DataFrame(table).to_csv(options.csv, index=False)


if __name__ == "__main__":
    main()
