"""What an audit costs over bare inference of the same number of transformed images.

The file is exported with random weights. The audit runs from the file alone, in its child process,
with everything it does: sampled metrics, finite differences, curves, self checks and the report.
Bare inference is an onnxruntime session in this process, fed batches of the same size that lie
ready. Both are timed in turn, the best of several repeats taken. Aim: at most 1.25.

    python -m tests.benchmarks.audit --help
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor

from captum_lie.models import load_model
from captum_lie_onnx import OnnxModel, audit, export
from tests.benchmarks.metrics_throughput import seconds

TARGET = 1.25


def counted(path: Path, images: Tensor, args: argparse.Namespace) -> list[int]:
    """Sizes of all batches that the audit runs."""
    sizes: list[int] = []
    call = OnnxModel.__call__

    def counting(self: OnnxModel, x: Tensor) -> Tensor:
        sizes.append(len(x))
        return call(self, x)

    with mock.patch.object(OnnxModel, "__call__", counting):
        run(path, images, args)
    return sizes


def run(path: Path, images: Tensor, args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        audit(
            path,
            images,
            groups=args.groups.split(","),
            n_samples=args.samples,
            batch_size=args.batch_size,
            threads=args.threads,
        ).save(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--groups", default="rotation")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.manual_seed(0)
    images = torch.rand(args.images, 3, args.size, args.size)
    with tempfile.TemporaryDirectory() as folder:
        path = export(
            load_model(args.model, pretrained=False), images[:2], Path(folder) / "model.onnx"
        )
        sizes = counted(path, images, args)
        bare = OnnxModel(path, threads=args.threads)
        batches = {n: bare.prepare(images[:1].expand(n, -1, -1, -1)) for n in set(sizes)}
        session, name = bare._file.engine, bare._file.input["name"]

        def inference() -> None:
            for n in sizes:
                session.run(name, batches[n], [bare.output])

        inference()
        audits, inferences = [], []
        for _ in range(args.repeats):
            audits.append(seconds(lambda: run(path, images, args)))
            inferences.append(seconds(inference))
    ratio = min(audits) / min(inferences)
    print(
        f"{args.model}, {sum(sizes)} images of {args.size} px in batches up to {args.batch_size}: "
        f"audit {min(audits):.2f} s, bare inference {min(inferences):.2f} s, "
        f"ratio {ratio:.2f} (aim: at most {TARGET})"
    )


if __name__ == "__main__":
    main()
