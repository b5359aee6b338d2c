# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Audit a deployment: does the file still react as the model did?
#
# A model is trained and judged in PyTorch, but what ships is a file: exported, optimised, perhaps
# quantised, fed by preprocessing that somebody wrote again. Accuracy on a few images will not tell
# whether it still reacts to shifts and rotations as before. An audit asks exactly that.
#
# Needed: the extra `onnx` (`pip install 'captum-lie[onnx]'`). LEE is explained in
# `01_getting_started`.

# %%
import copy
import os
from pathlib import Path

import matplotlib.pyplot as plt
import onnxruntime
import pandas as pd
import torch
from captum.attr import Occlusion

import captum_lie
from captum_lie import LocalEquivarianceError
from captum_lie.examples import load_images, load_model
from captum_lie.examples.models import BlurPool, Normalise
from captum_lie_onnx import (
    LieDerivativeModel,
    OnnxModel,
    OnnxModelError,
    audit,
    export,
    export_lie_derivative,
    inspect,
    quantize,
    resolve_thresholds,
)
from captum_lie_onnx.pictures import plot_curves, plot_worst_scores

SMALL = os.environ.get("CAPTUM_LIE_TUTORIALS") == "small"
N = 12 if SMALL else 96
GROUPS = ["translation_x", "rotation", "scale"]
plt.rcParams.update({"figure.dpi": 100, "font.size": 9, "image.interpolation": "nearest"})
pd.options.display.float_format = "{:.3g}".format
print("captum-lie", captum_lie.__version__, "·", N, "images")

# %% [markdown]
# ## Export
#
# `export` traces the model with a dynamic batch, checks the graph, compares it with PyTorch at
# several batch sizes and on photographs, and only then puts the file in place. What the input is
# (size, normalisation, layout) goes into the file's metadata.

# %%
model = load_model("cnn_blur")
images, labels = load_images(N)
file = export(model, images[:2], "cnn_blur.onnx", name="cnn_blur")
identity = inspect(file)
pd.Series(
    {
        "bytes": identity.size,
        "sha256": identity.sha256[:16] + " ...",
        "opset": dict(identity.opset),
        "input": identity.inputs[0]["shape"],
        "quantisation": identity.quantisation,
        "operators": ", ".join(f"{n} {op}" for op, n in identity.operators.items()),
    }
).to_frame("cnn_blur.onnx")

# %% [markdown]
# `inspect` parses the file in a child process with limits on memory and time, since a file that
# nobody vouches for can do harm by being opened.
#
# ## The file as a function
#
# `OnnxModel` takes and returns tensors, so Captum's perturbation methods work on it. Methods that
# need gradients do not: onnxruntime has none to give.

# %%
deployed = OnnxModel(file, threads=1)
x, label = images[3:4], labels[3].item()
window = {"sliding_window_shapes": (3, 4, 4), "strides": (3, 2, 2), "baselines": 0.5}
maps = {
    "PyTorch": Occlusion(model).attribute(x, target=label, **window),
    "onnxruntime": Occlusion(deployed).attribute(x, target=label, **window),
}
figure, axes = plt.subplots(1, 3, figsize=(7.5, 2.5), layout="constrained")
axes[0].imshow(x[0].permute(1, 2, 0))
axes[0].set_title("image")
limit = max(m.sum(1).abs().max().item() for m in maps.values())
for axis, (name, found) in zip(axes[1:], maps.items()):
    shown = axis.imshow(found[0].sum(0), cmap="RdBu_r", vmin=-limit, vmax=limit)
    axis.set_title(f"occlusion, {name}")
for axis in axes:
    axis.axis("off")
figure.colorbar(shown, ax=axes[2], shrink=0.8)
plt.show()
difference = (maps["PyTorch"] - maps["onnxruntime"]).abs().max().item()
print(f"largest difference of the two maps: {difference:.1e}")

# %% [markdown]
# ## The derivative as a graph
#
# LEE needs a derivative. It can be had without PyTorch, too: `export_lie_derivative` writes the
# Lie derivative itself as an ONNX graph of plain operators. It gives the probabilities and how
# fast they change, for every group asked for.

# %%
export_lie_derivative(model, GROUPS, images[:2], "cnn_blur.lie.onnx")
derivative = LieDerivativeModel("cnn_blur.lie.onnx")
exact = LocalEquivarianceError(model).score(images, GROUPS)
inside = derivative.lee(images)
pd.DataFrame(
    {
        "PyTorch": exact.mean(0).tolist(),
        "onnxruntime": inside.mean(0).tolist(),
        "largest difference of one image": (exact - inside).abs().amax(0).tolist(),
    },
    index=pd.Index(GROUPS, name="LEE"),
)

# %% [markdown]
# The two columns agree to rounding. This is no finite difference: both apply the chain rule, one
# in PyTorch's forward mode, one spelled out in the graph.
#
# ## A good export
#
# `audit` runs everything: parity of the scores, every sampled metric on the same transformations
# for both models, LEE, and the file against itself (one by one, twice, without graph
# optimisation). Each line is held against a threshold. Beside `cnn_blur.onnx` lies
# `cnn_blur.lie.onnx`, which the audit finds and uses.

# %%
report = audit(file, images, model, groups=GROUPS, reference_name="cnn_blur", threads=1)
print("passed" if report.passed else "failed", "·", len(report.checks), "lines")
lines = pd.DataFrame([check.to_dict() for check in report.checks])
lines[["name", "variant", "value", "threshold", "status"]].head(14)

# %% [markdown]
# The numbers behind the lines are in `report.comparison`: both models' values and the paired
# difference with its interval. Both models saw the same images and the same transformations, so
# the interval is much narrower than the spread between images.

# %%
report.comparison.set_index(["metric", "variant"])[
    ["candidate", "reference", "difference", "ci_low", "ci_high", "method"]
].loc[["eq_t", "eq_t_frac", "eq_r", "group_sample", "lee"]]

# %% [markdown]
# ## int8
#
# onnxruntime can quantise the file in two ways. *Dynamic*: weights are int8, ranges of activations
# are measured anew for each call. *Static*: ranges are fixed beforehand, on calibration images.

# %%
variants = {
    "dynamic int8": quantize(file, "cnn_blur.dynamic.onnx", "dynamic"),
    "static int8": quantize(file, "cnn_blur.static.onnx", "static", images),
}
sizes = pd.DataFrame(
    {
        name: {"kilobytes": Path(p).stat().st_size / 1000, "found": inspect(p).quantisation}
        for name, p in {"float32": file, **variants}.items()
    }
).T
sizes

# %% [markdown]
# Held against the thresholds for exports, an int8 file must fail: it does not compute the same
# numbers. The preset `quantized` asks whether it still behaves much the same.

# %%
tolerant = resolve_thresholds("quantized")
audits = {
    (name, preset): audit(path, images, file, groups=GROUPS, thresholds=held, threads=1)
    for name, path in variants.items()
    for preset, held in (("export", None), ("quantized", tolerant))
}
pd.DataFrame(
    {
        key: {
            "passed": found.passed,
            "lines that fail": found.count("fail"),
            "inconclusive": found.count("inconclusive"),
            "largest difference of scores": found.parity.max_relative,
            "same first class": found.parity.top1_agreement,
        }
        for key, found in audits.items()
    }
).T

# %% [markdown]
# *Inconclusive* are the three lines on LEE: by finite differences, which is all that an int8 file
# offers, the error bar spans the threshold. An int8 model is a staircase; it has no derivative to
# speak of, and the audit says so rather than give a number. The fourth is on sums of bytes that
# saturate on x86 CPUs without VNNI, which the CPU that this ran on cannot show. Finite motions
# can be compared:

# %%
static = audits["static int8", "quantized"]
plot_curves(static.candidate, static.reference)

# %% [markdown]
# Bands are 95 % intervals over images. And these are the images on which the scores differ most:

# %%
plot_worst_scores(static)

# %% [markdown]
# One trap of dynamic quantisation: the ranges are those of the *batch*, so an image's scores
# depend on who shares it. Here the same image runs alone and beside seven others:

# %%
session = onnxruntime.InferenceSession(variants["dynamic int8"], providers=["CPUExecutionProvider"])
batch = images[:8].numpy()
(together,), (alone,) = (session.run(None, {"images": b}) for b in (batch, batch[:1]))
print(f"largest change of the first image's scores: {abs(together[0] - alone[0]).max():.3f}")
print(f"over its largest score:                     {abs(alone).max():.3f}")

# %% [markdown]
# `OnnxModel` and the audit therefore run such files one image at a time.
#
# ## Broken on purpose
#
# Three ways in which deployments go wrong: normalisation written again with other constants, BGR
# images, and an anti-aliased pooling that was "simplified" to a strided one.


# %%
def with_other_constants():
    broken = copy.deepcopy(model)
    for module in broken.modules():
        if isinstance(module, Normalise):
            module.mean, module.std = 0.45, 0.225
    return broken


def with_swapped_channels():
    class Swapped(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = copy.deepcopy(model)

        def forward(self, x):
            return self.model(x.flip(1))

    return Swapped().eval()


def with_strided_pooling():
    broken = copy.deepcopy(model)
    for module in broken.modules():
        if isinstance(module, BlurPool):
            module.kernel = torch.zeros_like(module.kernel)
            module.kernel[..., 1, 1] = 1
    return broken


broken = {
    "other mean and std": with_other_constants(),
    "BGR for RGB": with_swapped_channels(),
    "strided pooling": with_strided_pooling(),
}
found = {}
for name, damaged in broken.items():
    path = export(damaged, images[:2], f"{name.replace(' ', '_')}.onnx")
    found[name] = audit(path, images, model, groups=GROUPS, threads=1)
pd.DataFrame(
    {
        name: {
            "accuracy": (r.candidate.outputs.argmax(1) == labels.numpy()).mean(),
            "same first class": r.parity.top1_agreement,
            "lines that fail": r.count("fail"),
        }
        for name, r in found.items()
    }
).T

# %% [markdown]
# How far each is over each threshold, in factors of ten: 0 is the threshold itself, blue is within
# it, red beyond. Each kind of damage leaves a trace of its own.

# %%
rows = ["parity.max_relative", "difference.consistency", "difference.eq_t", "difference.eq_t_frac",
        "difference.eq_r", "difference.group_sample", "difference.lee",
        "difference.changed_by_shift", "difference.changed_by_rotation"]  # fmt: skip
excess = pd.DataFrame(
    {
        name: {row: max(c.value / c.threshold for c in r.checks if c.name == row) for row in rows}
        for name, r in {"good export": report, **found}.items()
    }
)
values = torch.tensor(excess.to_numpy()).clamp(min=1e-4).log10()
figure, axis = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
shown = axis.imshow(values, cmap="RdBu_r", vmin=-4, vmax=4, aspect="auto")
axis.set_xticks(range(len(excess.columns)), excess.columns)
axis.set_yticks(range(len(rows)), rows)
for (i, j), value in zip(
    [(i, j) for i in range(len(rows)) for j in range(len(excess.columns))], values.flatten()
):
    axis.text(j, i, f"{value:.1f}", ha="center", va="center",
              color="white" if abs(value) > 2.5 else "black")  # fmt: skip
figure.colorbar(shown, label="log10(value / threshold)")
plt.show()

# %% [markdown]
# ## Without PyTorch
#
# Later, on another machine, there may be nothing but the file. An audit can run from the file
# alone (no parity then), or against the `audit.json` of an earlier one, which holds all that a
# comparison needs.

# %%
report.save("first-audit")
again = audit(file, images, "first-audit/audit.json", groups=GROUPS, threads=1)
lonely = audit(file, images, groups=GROUPS, threads=1)
print(
    "against the saved report:", "passed" if again.passed else "failed", len(again.checks), "lines"
)
print(
    "from the file alone:     ",
    "passed" if lonely.passed else "failed",
    len(lonely.checks),
    "lines",
)
print("written:", ", ".join(sorted(p.name for p in Path("first-audit").iterdir())))

# %% [markdown]
# ## In continuous integration
#
# The same from a shell: `captum-lie audit cnn_blur.onnx --reference cnn_blur --out audit`. Exit
# code 0 means passed, 1 that a threshold is exceeded, 2 that something cannot be used. Thresholds
# come from a preset, a TOML file, and flags, and `junit.xml` has a test case for every line:

# %%
print("\n".join(Path("first-audit/junit.xml").read_text().splitlines()[:8]))

# %% [markdown]
# ## Files that cannot be trusted
#
# The file is opened in a child process only, custom operators and external data outside its folder
# are refused, and what declares more memory than allowed is not loaded. Broken files give one line:

# %%
content = file.read_bytes()
Path("cut.onnx").write_bytes(content[: len(content) // 2])
Path("text.onnx").write_text("not a model")
for name in ("cut.onnx", "text.onnx", "missing.onnx"):
    try:
        inspect(name)
    except OnnxModelError as error:
        print(f"{name}: {error}\n")

# %% [markdown]
# ## In short
#
# - `export` checks the file before it is written; `OnnxModel` is the file as a function.
# - `export_lie_derivative` makes LEE exact without PyTorch.
# - `audit` compares how two models *react*, on the same transformations, line by line.
# - Judge an int8 file by the preset `quantized`, by finite motions rather than LEE, and run
#   dynamically quantised files one image at a time.
