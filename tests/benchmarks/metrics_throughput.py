"""How much of a model's throughput is left when a metric feeds it.

Each metric runs once with a model that keeps its inputs. Then the metric, and the bare model on
those very inputs, are timed in turn, and the best of several repeats of each is taken, since other
programs only ever slow things down. Their ratio is 1 when the metric costs nothing; the target is
0.85 or more for ResNet-50 with batches of 8 on the CPU. Beside it stands the share of the metric's
time that is spent inside the model, which a busy machine disturbs less.

    python tests/benchmarks/metrics_throughput.py --help
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from captum_lie.metrics import METRIC_NAMES, measure

TARGET = 0.85


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def ratio(
    metric: str, model: Callable[[Tensor], Tensor], images: Tensor, args: argparse.Namespace
) -> tuple[float, float, float]:
    """Throughput under the metric over bare throughput, share inside the model, images/s."""

    def metric_with(f: Callable[[Tensor], Tensor]) -> object:
        return measure(
            f,
            images,
            metric,
            groups=args.groups.split(","),
            n_samples=args.samples,
            batch_size=args.batch_size,
        )

    seen: list[Tensor] = []

    def keeping(x: Tensor) -> Tensor:
        seen.append(x)
        return model(x)

    def bare() -> None:
        with torch.no_grad():
            for x in seen:
                model(x)

    metric_with(keeping)
    inside: list[float] = []

    def timed(x: Tensor) -> Tensor:
        start = time.perf_counter()
        output = model(x)
        inside.append(time.perf_counter() - start)
        return output

    times = [(seconds(bare), seconds(lambda: metric_with(timed))) for _ in range(args.repeats)]
    bare_time, metric_time = (min(column) for column in zip(*times, strict=True))
    share = sum(inside) / sum(total for _, total in times)
    return bare_time / metric_time, share, sum(map(len, seen)) / bare_time


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="resnet50", help="timm model (untrained)")
    parser.add_argument("--metrics", default=",".join(METRIC_NAMES))
    parser.add_argument("--groups", default="rotation", help="of group_sample and lee_fd")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--size", type=int, default=224, help="pixels a side")
    parser.add_argument("--samples", type=int, default=10, help="transformations per image")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()

    import timm

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = timm.create_model(args.model, pretrained=False).eval()
    images = torch.rand(args.images, 3, args.size, args.size)
    print(f"{args.model}, batch {args.batch_size}, {args.size} px, {args.threads} threads")
    for metric in args.metrics.split(","):
        found, share, speed = ratio(metric, model, images, args)
        verdict = "ok" if found >= TARGET else f"below {TARGET}"
        print(
            f"{metric:15s} {found:6.3f} of bare throughput ({speed:6.1f} images/s), "
            f"{share:6.3f} of the time inside the model  {verdict}",
            flush=True,
        )


if __name__ == "__main__":
    main()
