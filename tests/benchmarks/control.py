"""Relative LEE of all ten groups: what an image costs, and how far the control is off by probing.

    python -m tests.benchmarks.control --model tf_efficientnet_lite0 --images 32

Costs are in forward passes: the cheaper of one batch and a loop over its images. Needs the extra
``timm``; names of embedded models work, too. A model with more than 32 outputs gets its control by
probes; their error is the stated one. Photographs are crops of those that ship with scikit-image.
"""

from __future__ import annotations

import argparse
import resource

import torch
from torch import Tensor

from captum_lie import LocalEquivarianceError
from captum_lie.models import load_model
from tests.benchmarks.measuring import compare


def crops(n: int, size: int) -> Tensor:
    """Crops of three photographs, ``[n, 3, size, size]`` in [0, 1]."""
    from skimage import data

    generator = torch.Generator().manual_seed(0)
    found = []
    for i in range(n):
        photo = (data.astronaut, data.chelsea, data.coffee)[i % 3]()
        image = torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 255
        side = int(min(image.shape[2:]) * (0.5 + 0.5 * torch.rand((), generator=generator)))
        top, left = (
            int(torch.randint(0, extent - side + 1, (), generator=generator))
            for extent in image.shape[2:]
        )
        crop = image[:, :, top : top + side, left : left + side]
        resized = torch.nn.functional.interpolate(
            crop, (size, size), mode="bicubic", antialias=True
        )
        found.append(resized.clamp(0, 1)[0])
    return torch.stack(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--model", action="append", help="as for captum-lie measure; repeatable")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--probes", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--untrained", action="store_true")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; forward passes an image")
    print(f"{'model':28} {'score':>7} {'control':>8} {'evaluate':>9} {'of score':>9} "
          f"{'probing error':>14} {'system time':>12}")  # fmt: skip
    for name in options.model or ["tf_efficientnet_lite0", "cnn", "cnn_blur", "vit", "mixer"]:
        torch.manual_seed(0)
        model = load_model(name, pretrained=not (options.untrained or "efficientnet" in name))
        height, _ = getattr(model, "input_size", None) or (32, 32)
        images = crops(options.images, height)
        batch = images[: options.batch]
        method = LocalEquivarianceError(model)

        @torch.no_grad()
        def at_once(model: torch.nn.Module = model, batch: Tensor = batch) -> None:
            model(batch)

        @torch.no_grad()
        def one_by_one(model: torch.nn.Module = model, batch: Tensor = batch) -> None:
            for image in batch.split(1):
                model(image)

        def score(method: LocalEquivarianceError = method, batch: Tensor = batch) -> Tensor:
            return method.score(batch)

        def control(method: LocalEquivarianceError = method, batch: Tensor = batch) -> Tensor:
            return method.control_score(batch, n_probes=options.probes)

        def evaluate(method: LocalEquivarianceError = method, batch: Tensor = batch) -> object:
            return method.evaluate([batch], n_probes=options.probes)

        before = resource.getrusage(resource.RUSAGE_SELF)
        costs = compare(
            {"batch": at_once, "loop": one_by_one, "score": score, "control": control,
             "evaluate": evaluate},
            options.repeats,
        )  # fmt: skip
        after = resource.getrusage(resource.RUSAGE_SELF)
        forward = min(costs["batch"].seconds, costs["loop"].seconds)
        found = method.collect(images.split(options.batch), n_probes=options.probes)
        passes = {k: c.seconds / forward for k, c in costs.items()}
        system = (after.ru_stime - before.ru_stime) / (after.ru_utime - before.ru_utime)
        print(f"{name:28} {passes['score']:7.1f} {passes['control']:8.1f} "
              f"{passes['evaluate']:9.1f} {passes['evaluate'] / passes['score']:9.2f} "
              f"{found.control_error.max().item():14.2%} {system:12.1%}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
