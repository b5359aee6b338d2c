"""Layerwise decomposition beside the literal estimator of the paper.

The paper's released estimator hooks every layer, differentiates it there along the group by double
backward, and sends one Gaussian probe after another backward through the network. It is written out
here from the mathematics: hooks attach each layer's local error ``J_i ξ(x_i) - ξ(x_{i+1})``, then
each probe costs one forward and one backward pass, and gives a sample of ``⟨v, C_i⟩²`` per layer.

    python -m tests.benchmarks.layerwise --model resnet50 --probes 5

Needs the extra ``timm``. The literal estimator is run with ``--probes`` probes and its time scaled
to 100. The weights are random; the softmax is scaled so that the top class gets 90 %, as with
trained ones. Prints median seconds, ratios, peak memory, and how much time ``norm`` takes to the
same standard error.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import captum_lie_timm  # noqa: F401 (registers the layouts of timm's modules)
from captum_lie import get_groups
from captum_lie.core.derivative import OutputFn
from captum_lie.groups import OneParameterGroup
from captum_lie.layerwise import LayerwiseEquivarianceError
from captum_lie.layerwise.evaluation import evaluated, leaves_of
from captum_lie.layerwise.hooks import frozen
from captum_lie.layerwise.tracing import Call
from captum_lie.layouts import Layout
from tests.benchmarks.measuring import compare

Layouts = dict[str, tuple[Layout, Layout]]


def leaf_layouts(model: nn.Module, x: Tensor) -> Layouts:
    """Layouts of all leaf modules with one input, one output and known boundaries."""
    with evaluated(model, model, leaves_of((x,))) as evaluation:
        calls = evaluation.calls

    def usable(call: Call) -> bool:
        single = len(call.inputs) == len(call.outputs) == 1
        return not call.has_children and call.resolved and not call.idle and single

    return {c.name: (c.inputs[0].layout, c.outputs[0].layout) for c in calls if usable(c)}


Errors = dict[str, tuple[Tensor, Tensor]]
Hook = Callable[[nn.Module, tuple[Tensor], Tensor], Tensor]


def local_error_hook(
    name: str, layouts: tuple[Layout, Layout], group: OneParameterGroup, errors: Errors
) -> Hook:
    """Forward hook that keeps ``J ξ(x) - ξ(y)`` of its layer, by double backward."""
    entering, leaving = layouts

    def attach(module: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor:
        here = args[0].detach()
        t = torch.zeros((), requires_grad=True)
        again = module.forward(here + t * entering.generator(group, here))
        dummy = torch.zeros_like(again, requires_grad=True)
        (gradient,) = torch.autograd.grad(again, t, dummy, create_graph=True)
        (derivative,) = torch.autograd.grad(gradient, dummy)
        copy = output.clone()
        errors[name] = (copy, derivative - leaving.generator(group, output.detach()))
        return copy

    return attach


def literal(
    model: nn.Module,
    x: Tensor,
    group: OneParameterGroup,
    layouts: Layouts,
    probes: int,
    output_fn: OutputFn,
) -> dict[str, Tensor]:
    """Squared norms of the leaves' contributions by Gaussian probes, one pass for each."""
    modules = dict(model.named_modules())
    sums: dict[str, Tensor] = {name: torch.zeros(len(x)) for name in layouts}
    for _ in range(probes):
        errors: Errors = {}
        handles = [
            modules[name].register_forward_hook(local_error_hook(name, pair, group, errors))
            for name, pair in layouts.items()
        ]
        try:
            output = output_fn(model(x.clone().requires_grad_()))
        finally:
            for handle in handles:
                handle.remove()
        copies = [copy for copy, _ in errors.values()]
        gradients = torch.autograd.grad(output, copies, torch.randn_like(output))
        for (name, (_, error)), gradient in zip(errors.items(), gradients, strict=True):
            sums[name] += (gradient * error).flatten(1).sum(1) ** 2
    return {name: total / probes for name, total in sums.items()}


def confident_softmax(model: nn.Module, x: Tensor, confidence: float = 0.9) -> OutputFn:
    """Softmax at the temperature at which random weights are as sure as trained ones."""
    with torch.no_grad():
        scores = model(x)
    scale = 1.0
    while (scale * scores).softmax(1).max(1).values.mean() < confidence:
        scale *= 1.2
    return lambda output: (scale * output).softmax(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", action="append", help="timm name; repeat for several")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--probes", type=int, default=4, help="probes of the literal estimator")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    import timm

    group, both = get_groups(["translation_x", "rotation"])
    every = get_groups("all")
    print(f"batch {options.batch}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    for name in options.model or ["resnet50", "vit_tiny_patch16_224"]:
        torch.manual_seed(0)
        model = timm.create_model(name, pretrained=False).eval()
        x = torch.rand(options.batch, 3, 224, 224)
        confident = confident_softmax(model, x)
        method = LayerwiseEquivarianceError(model, output_fn=confident)
        layouts = leaf_layouts(model, x)

        def forward(model: nn.Module = model, x: Tensor = x) -> Tensor:
            with torch.no_grad():
                return model(x)

        def paper(
            model: nn.Module = model,
            x: Tensor = x,
            layouts: Layouts = layouts,
            confident: OutputFn = confident,
        ) -> object:
            with sdpa_kernel(SDPBackend.MATH), frozen(model):
                return literal(model, x, group, layouts, options.probes, confident)

        costs = compare(
            {
                "forward pass": forward,
                "aligned, exact": partial(method.attribute, x, group),
                "target, translation x": partial(method.attribute, x, [group], "target", target=0),
                "target, rotation": partial(method.attribute, x, [both], "target", target=0),
                "target, all groups": partial(method.attribute, x, every, "target", target=0),
                "norm, 20 probes": partial(method.attribute, x, group, "norm", n_probes=20),
                f"literal, {options.probes} probes": paper,
            },
            options.repeats,
        )
        unit = costs["forward pass"].seconds
        print(f"\n{name}: {len(layouts)} leaves")
        print(f"{'method':28} {'seconds':>8} {'forwards':>9} {'peak MiB':>9}")
        for label, cost in costs.items():
            print(f"{label:28} {cost.seconds:8.2f} {cost.seconds / unit:9.1f} {cost.memory:9.0f}")
        literal_100 = costs[f"literal, {options.probes} probes"].seconds / options.probes * 100
        print(f"{'literal, 100 probes (scaled)':28} {literal_100:8.2f} {literal_100 / unit:9.1f}")
        print(f"aligned is {literal_100 / costs['aligned, exact'].seconds:.0f} times faster than "
              "100 probes, and exact")  # fmt: skip
        one, two, all_of_them = (
            costs[f"target, {label}"].seconds
            for label in ("translation x", "rotation", "all groups")
        )
        further = (all_of_them - two) / (len(every) - 1) / unit
        print(f"a further group (target) costs {further:.2f} forward passes, the first that also "
              f"moves rows {(two - one) / unit:.2f}")  # fmt: skip
        # Gaussian probes have relative standard error √(2/P): compare at equal standard error.
        result = method.attribute(x, group, "norm", n_probes=20)
        assert result.stderr is not None
        rows = [i for i, row in enumerate(result.rows) if row.module in layouts]
        ratio = (result.stderr[rows] / result.contributions[rows]).nanmedian().item()
        needed = 2 / max(ratio, 1e-2) ** 2
        seconds = costs[f"literal, {options.probes} probes"].seconds / options.probes * needed
        faster = seconds / costs["norm, 20 probes"].seconds
        print(f"norm with 20 probes has the standard error of {needed:.0f} Gaussian probes or more "
              f"(median leaf): {faster:.0f} times faster at equal standard error")  # fmt: skip


if __name__ == "__main__":
    main()
