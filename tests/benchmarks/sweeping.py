"""What a sweep costs beyond ``captum-lie measure`` of the same models in one process.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.sweeping --images 32 --repeats 3

Both commands are run in turn, as whole processes from their start to their end, on the same models
and images; a sweep starts a process for each model and stores each cell. Needs the extra ``timm``
for the models by default.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

MODELS = (
    "cnn", "vit", "mixer", "timm:test_resnet@random", "timm:test_vit@random",
    "timm:resnet10t@random",
)  # fmt: skip


def seconds(command: str, options: list[str]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "captum_lie", command, *options, "--out", folder],
            check=True, capture_output=True,
        )  # fmt: skip
        return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--model", action="append", help="as for captum-lie measure; repeatable")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    models: list[str] = options.model or list(MODELS)
    shared = ["--limit", str(options.images), "--device", "cpu"]
    measure = [x for m in models for x in ("--model", m)]
    measure += ["--images", "builtin", "--no-control", "--pictures", "0", *shared]
    sweep = ["--models", ",".join(models), "--images", "test=builtin", *shared]
    print(f"{len(models)} models, {options.images} images, load {os.getloadavg()[0]:.1f}")
    print(f"{'measure s':>10} {'sweep s':>10} {'ratio':>7} {'s a model more':>15} {'allowed':>8}")
    alone, swept = [], []
    for _ in range(options.repeats):
        alone.append(seconds("measure", measure))
        swept.append(seconds("sweep", sweep))
        _print(alone[-1], swept[-1], len(models))
    print("median")
    _print(statistics.median(alone), statistics.median(swept), len(models))


def _print(measure: float, sweep: float, models: int) -> None:
    more = (sweep - measure) / models
    allowed = 0.15 * measure / models + 10
    print(f"{measure:10.1f} {sweep:10.1f} {sweep / measure:7.2f} {more:15.2f} {allowed:8.2f}",
          flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
