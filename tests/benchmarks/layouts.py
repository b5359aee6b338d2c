"""What layouts cost: every boundary of a model to its image and back, beside one forward pass.

    python -m tests.benchmarks.layouts --model resnet50 --model swin_tiny_patch4_window7_224

Random weights, one thread. Printed are the boundaries that move, the median milliseconds of a
forward pass, and as shares of it those of asking every boundary's layout for what one decomposition
asks (whether it fits, how many examples, two images) and of writing an image back.

Needs the extra ``timm``.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

from captum_lie.layerwise.fluxes import recorded
from captum_lie.layouts import Layout
from tests.benchmarks.measuring import compare

MODELS = (
    "resnet50",
    "convnext_tiny",
    "vit_tiny_patch16_224",
    "swin_tiny_patch4_window7_224",
    "hiera_tiny_224",
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", action="append", help="timm name; repeat for several")
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    import timm

    import captum_lie_timm  # noqa: F401 (registers the layouts)

    torch.set_num_threads(1)
    print(f"{'model':30} {'boundaries':>10} {'forward ms':>10} {'to images':>9} {'back':>6}")
    for name in options.model or MODELS:
        torch.manual_seed(0)
        model = timm.create_model(name, pretrained=False).eval()
        x = torch.rand(options.images, 3, 224, 224)
        with recorded(model, (x,), output_fn=None) as recording:
            met = [
                (b.layout, b.value)
                for call in recording.calls
                for b in (*call.inputs, *call.outputs)
                if b.layout.moves
            ]
        images = [layout.to_image(value) for layout, value in met]

        def forward(model: torch.nn.Module = model, x: Tensor = x) -> object:
            with torch.no_grad():
                return model(x)

        def there(met: list[tuple[Layout, Tensor]] = met) -> None:
            for layout, value in met:
                layout.fits(value), layout.examples(value)
                layout.to_image(value)
                layout.to_image(value)

        def back(met: list[tuple[Layout, Tensor]] = met, images: list[Tensor] = images) -> None:
            for (layout, value), image in zip(met, images, strict=True):
                layout.from_image(image, value)

        cost = compare({"forward": forward, "there": there, "back": back}, options.repeats)
        one = cost["forward"].seconds
        print(
            f"{name:30} {len(met):10} {1000 * one:10.1f} {cost['there'].seconds / one:9.3f} "
            f"{cost['back'].seconds / one:6.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
