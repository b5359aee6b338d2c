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
# # Beside saliency: another question, the same interface
#
# Saliency maps say which pixels a *score* depends on. `LieDerivative` says which pixels make it
# *change when the image moves*. This notebook puts both on the same image, asks whether an
# explanation itself moves along with the image, and runs Captum's two quality measures,
# infidelity and sensitivity, on all of them.
#
# It takes for granted what a tangent and a Lie derivative are (see `01_getting_started`).

# %%
import os

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from captum.attr import (
    InputXGradient,
    IntegratedGradients,
    LayerAttribution,
    LayerGradCam,
    NoiseTunnel,
    Occlusion,
    Saliency,
)
from captum.metrics import infidelity, sensitivity_max
from IPython.display import display

import captum_lie
from captum_lie import LieDerivative, get_group, lie_derivative, metrics
from captum_lie.examples import CLASSES, load_images, load_model
from captum_lie.examples.photographs import find_photographs
from captum_lie.images import ImageFiles, view_of
from captum_lie.layouts import NCHW
from captum_lie.models import load_model as load_by_name
from captum_lie.plotting import legible_sigma, plot_attribution, smooth_map

try:
    from captum_lie_timm.imagenet import available
except ImportError:  # timm is not installed
    available = list

SMALL = os.environ.get("CAPTUM_LIE_TUTORIALS") == "small"
N = 4 if SMALL else 32
plt.rcParams.update({"figure.dpi": 100, "font.size": 9, "image.interpolation": "nearest"})
pd.options.display.float_format = "{:.3g}".format
print("captum-lie", captum_lie.__version__, "·", N, "images")

# %% [markdown]
# ## One image, one model
#
# The embedded CNN, and a picture of a rocket, of which the model is not quite sure.

# %%
model = load_model("cnn")
images, labels = load_images(64)
index = 47
x, label = images[index : index + 1], labels[index].item()

figure, axes = plt.subplots(1, 2, figsize=(7, 2.6), layout="constrained")
axes[0].imshow(x[0].permute(1, 2, 0))
axes[0].set_title(f"class: {CLASSES[label]}")
axes[0].axis("off")
axes[1].barh(CLASSES, model(x).softmax(1)[0].detach())
axes[1].invert_yaxis()
axes[1].set(xlabel="probability", xlim=(0, 1))
plt.show()

# %% [markdown]
# ## The same call
#
# Every method below takes `attribute(inputs, target=...)`. `LieDerivative` has one more argument,
# the group. All maps are signed, summed over colour channels. Grad-CAM has one value for each of
# the 4 × 4 places of the last stage and is enlarged without smoothing; occlusion slides a grey 4
# × 4 window.

# %%
grey = 0.5
window = {"sliding_window_shapes": (3, 4, 4), "strides": (3, 2, 2), "baselines": grey}


def leaf(images):
    """Captum's gradient methods want inputs that require gradients."""
    return images.detach().clone().requires_grad_()


def saliency(images, target):
    return Saliency(model).attribute(leaf(images), target=target, abs=False)


def input_x_gradient(images, target):
    return InputXGradient(model).attribute(leaf(images), target=target)


def integrated_gradients(images, target):
    return IntegratedGradients(model).attribute(images, target=target, baselines=grey, n_steps=24)


def smoothed_saliency(images, target):
    torch.manual_seed(0)
    return NoiseTunnel(Saliency(model)).attribute(
        leaf(images), target=target, abs=False, nt_samples=16, stdevs=0.05
    )


def grad_cam(images, target):
    maps = LayerGradCam(model, model.stages).attribute(leaf(images), target=target)
    return LayerAttribution.interpolate(maps, images.shape[-2:], "nearest")


def occlusion(images, target):
    return Occlusion(model).attribute(images, target=target, **window)


def lie(group):
    def attribute(images, target):
        return LieDerivative(model).attribute(images, target=target, group=group)

    return attribute


def smoothed_lie(images, target):
    torch.manual_seed(0)
    return NoiseTunnel(LieDerivative(model)).attribute(
        images, target=target, group="rotation", nt_samples=16, stdevs=0.05
    )


methods = {
    "Saliency": saliency,
    "Input × gradient": input_x_gradient,
    "Integrated gradients": integrated_gradients,
    "Smoothed saliency": smoothed_saliency,
    "Grad-CAM": grad_cam,
    "Occlusion": occlusion,
    "LieDerivative": lie("rotation"),
    "Smoothed LieDerivative": smoothed_lie,
}
found = {name: method(x, label).detach() for name, method in methods.items()}
pd.DataFrame(
    {"shape": {name: str(tuple(a.shape)) for name, a in found.items()}}
    | {"sum": {name: a.sum().item() for name, a in found.items()}}
)

# %% [markdown]
# What a sum means depends on the method. For integrated gradients it is the logit minus that of
# the grey baseline, for `LieDerivative` the rate of the logit per radian. For saliency it means
# nothing.

# %%
with torch.no_grad():
    gap = (model(x) - model(torch.full_like(x, grey)))[0, label].item()
print(f"logit minus that of grey     {gap:.3f}")
print(f"sum of integrated gradients  {found['Integrated gradients'].sum().item():.3f}")
print(
    f"rate of the logit            {lie_derivative(model, x, 'rotation', target=label).item():.3f}"
)
print(f"sum of LieDerivative         {found['LieDerivative'].sum().item():.3f}")

# %% [markdown]
# ## The maps
#
# Red pixels raise the rocket's score, blue ones lower it; for `LieDerivative`, while the image
# turns. Each map has its own scale, written below the map.


# %%
def show(axis, attribution, title):
    values = attribution.sum(0)
    largest = values.abs().quantile(0.99).item() or 1
    axis.imshow(values, cmap="RdBu_r", vmin=-largest, vmax=largest)
    axis.set_title(title)
    axis.set_xlabel(f"±{largest:.2g}")
    axis.set_xticks([])
    axis.set_yticks([])


figure, axes = plt.subplots(2, 5, figsize=(11, 5), layout="constrained")
for column in axes[:, 0]:
    column.imshow(x[0].permute(1, 2, 0))
    column.set_xticks([])
    column.set_yticks([])
axes[0, 0].set_title("image")
for axis, (name, attribution) in zip(axes[:, 1:].flat, found.items(), strict=True):
    show(axis, attribution[0], name)
plt.show()

# %% [markdown]
# Saliency and input × gradient are grainy and spread over the bright body. Integrated gradients
# point at the edge of the rocket against the sky, Grad-CAM at the left half, occlusion at the
# upper right corner and the edge. `LieDerivative` is concentrated on few places: the edge at the
# upper left, the emblem, and details at the bottom. It is zero where nothing changes when the
# image turns, as in the plain sky.
#
# How alike are the maps? The correlation over the pixels says it in numbers.

# %%
names = list(found)
flat = torch.stack([found[name][0].sum(0).flatten() for name in names])
similarity = torch.corrcoef(flat)
figure, axis = plt.subplots(figsize=(6.2, 4.8), layout="constrained")
drawn = axis.imshow(similarity, cmap="RdBu_r", vmin=-1, vmax=1)
for (row, column), value in np.ndenumerate(similarity.numpy()):
    colour = "white" if abs(value) > 0.6 else "black"
    axis.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=8)
axis.set_xticks(range(len(names)), names, rotation=35, ha="right")
axis.set_yticks(range(len(names)), names)
figure.colorbar(drawn, label="correlation over pixels")
plt.show()

# %% [markdown]
# Saliency and input × gradient agree almost fully, 0.97. `LieDerivative` correlates with none of
# the others by more than 0.25, except with its own smoothed version. It is not a better or worse
# saliency map: it answers another question.
#
# ## On a real model
#
# The same methods on EfficientNet-Lite0, trained on ImageNet (its weights come with the extra
# `imagenet`), and a cat. At 224 pixels all gradient maps are specks; smoothed by a Gaussian that
# keeps their sum, and laid over the grey image, they can be read.

# %%
NAME = "imagenet:efficientnet_lite0"
if NAME in available() and "chelsea" in find_photographs():
    real = load_by_name(NAME)
    cat = ImageFiles([find_photographs()["chelsea"]]).read(0, view_of(real))[None]
    answer = real(cat).argmax(1).item()
    maps = {
        "Saliency": Saliency(real).attribute(leaf(cat), target=answer, abs=False),
        "Integrated gradients": IntegratedGradients(real).attribute(
            cat, target=answer, baselines=grey, n_steps=4 if SMALL else 24, internal_batch_size=8
        ),
        "Input × gradient": InputXGradient(real).attribute(leaf(cat), target=answer),
        "Lie: rotation": LieDerivative(real).attribute(cat, target=answer, group="rotation"),
        "Lie: translation_x": LieDerivative(real).attribute(
            cat, target=answer, group="translation_x"
        ),
    }
    maps = {name: attribution.detach()[0] for name, attribution in maps.items()}
    sigma = legible_sigma(*cat.shape[-2:])
    figure, axes = plt.subplots(1, 6, figsize=(12, 2.5), layout="constrained")
    axes[0].imshow(cat[0].permute(1, 2, 0))
    axes[0].set_title(real.classes[answer].split(",")[0], fontsize=9)
    axes[0].set_xticks([])
    axes[0].set_yticks([])
    for axis, (name, attribution) in zip(axes[1:], maps.items()):
        plot_attribution(attribution, cat[0], ax=axis, title=name, method="overlay", smooth=sigma)
        axis.set_xlabel(f"sum {attribution.sum():.3g}", fontsize=8)
    plt.show()
    smooth = torch.stack([smooth_map(a.sum(0), sigma).flatten() for a in maps.values()])
    display(pd.DataFrame(torch.corrcoef(smooth), index=maps, columns=maps).round(2))
else:
    print("Not shown: needs the extra, pip install 'captum-lie[imagenet]'.")

# %% [markdown]
# Saliency and input × gradient pick out spots along the nose, saliency the eyes, too; integrated
# gradients the eye on the left and the rim of the nose. `LieDerivative` under rotation lies at
# the lower border and the mouth, far from the centre, where a rotation moves most; under the
# shift along the bridge of the nose and the mouth. Smoothed, too, the Lie maps correlate with the
# three others by no more than 0.08: what was seen on the small model is no matter of its size.
# The sums say how much: the logit of "tiger cat" rises by 79 per radian, that is 1.4 per degree,
# and falls by 26 per half image width.
#
# ## A family that you know one member of
#
# `LieDerivative` is the gradient times the tangent. The tangent of brightness is the image
# itself: so under `"brightness"` it *is* Captum's `InputXGradient`. Other groups multiply the
# same gradient by other tangents.

# %%
groups = ("brightness", "translation_x", "translation_y", "rotation", "scale")
figure, axes = plt.subplots(2, 5, figsize=(11, 4.8), layout="constrained")
for (top, bottom), name in zip(axes.T, groups, strict=True):
    show(top, get_group(name).generator(x)[0] / 3, name)
    show(bottom, lie(name)(x, label)[0], "")
axes[0, 0].set_ylabel("tangent, mean over colours")
axes[1, 0].set_ylabel("LieDerivative")
plt.show()
difference = lie("brightness")(x, label) - found["Input × gradient"]
print("largest difference from InputXGradient:", difference.abs().max().item())

# %% [markdown]
# The first tangent is the image, and its map is `InputXGradient` to within rounding. The others
# are large at edges that lie across the motion, and so are their maps: the vertical edge of the
# rocket shows under `translation_x` and not under `translation_y`.
#
# ## Does an explanation move with its image?
#
# Turn the photograph of a rocket, and the important pixels should turn with it. An explanation is
# a function from images to images, so its own equivariance can be measured, with the tools made
# for models. First, to look at: explain the turned image, turn the map back, and compare with the
# map of the original.


# %%
def explain(name):
    """The explanation of the predicted class as a function [N, 3, H, W] -> [N, 1, H, W]."""

    def function(images):
        with torch.no_grad():
            target = model(images).argmax(1)
        with torch.enable_grad():
            attribution = methods[name](images, target)
        maps = attribution.detach().sum(1, keepdim=True)
        return maps - maps.mean((2, 3), keepdim=True)  # a constant would move with any image

    return function


angle = 0.2
turn = get_group("rotation", interpolation="central")
rows = ("Saliency", "Integrated gradients", "Smoothed saliency", "Grad-CAM", "LieDerivative")
figure, axes = plt.subplots(4, 5, figsize=(10.5, 8.6), layout="constrained")
for column, name in zip(axes.T, rows, strict=True):
    f = explain(name)
    original, back = f(x)[0], turn.act(f(turn.act(x, angle)), -angle)[0]
    largest = original.abs().quantile(0.99).item()
    for axis, picture in zip(
        column, (original, f(turn.act(x, angle))[0], back, back - original), strict=True
    ):
        axis.imshow(picture[0], cmap="RdBu_r", vmin=-largest, vmax=largest)
        axis.set_xticks([])
        axis.set_yticks([])
    column[0].set_title(name)
for axis, text in zip(
    axes[:, 0], ("f(x)", "f(T x)", "T⁻¹ f(T x)", "T⁻¹ f(T x) − f(x)"), strict=True
):
    axis.set_ylabel(text)
plt.show()

# %% [markdown]
# From top to bottom: the map, the map of the image turned by 0.2 radians (11 degrees), that map
# turned back, and the difference from the first. Were the explanations to turn with the image,
# the last row would be empty. It is about as strong as the maps themselves, and for the gradient
# maps it is strong where the map is. (The mean of each map is taken off: a constant moves with
# any image.)
#
# ## The same in numbers
#
# `metrics.eq_t` with `output_layout=NCHW` compares the map of a shifted image with the shifted
# map, over many images and whole-pixel shifts; `metrics.group_sample_error` does so for any
# group. Both give a mean square in the map's own units, so we divide by the mean square of the
# map. 0 is an explanation that moves exactly with its image. The last column compares with the
# map of *another* image: what an explanation reaches that has nothing to do with where things
# are.

# %%
few = images[:N]
rows = {}
for name in methods:
    f = explain(name)
    maps = f(few)
    size = maps.square().mean().item()
    inner = maps[..., 4:-4, 4:-4].square().mean().item()
    common = {"output_fn": None, "output_layout": NCHW, "n_samples": 2 if SMALL else 4}
    shifted = metrics.eq_t(f, few, margin=4, border="reflect", **common)
    turned = metrics.group_sample_error(f, few, "rotation", **common)[0]
    rows[name] = {
        "whole-pixel shifts": shifted.value / inner,
        "± shifts": shifted.stderr / inner,
        "rotations up to 11°": turned.value / size,
        "± rotations": turned.stderr / size,
        "another image's map": (maps - maps.roll(1, 0)).square().mean().item() / size,
    }
equivariance = pd.DataFrame(rows).T.sort_values("whole-pixel shifts")
equivariance

# %%
figure, axis = plt.subplots(figsize=(8, 4), layout="constrained")
place = np.arange(len(equivariance))
for i, (column, error) in enumerate(
    (("whole-pixel shifts", "± shifts"), ("rotations up to 11°", "± rotations"))
):
    axis.barh(
        place + (i - 0.5) * 0.38,
        equivariance[column],
        0.36,
        xerr=equivariance[error],
        label=column,
        ecolor="0.3",
    )
axis.plot(equivariance["another image's map"], place, "k|", ms=22, label="another image's map")
axis.set_yticks(place, equivariance.index)
axis.set(xlabel="mean square of the change, relative to the map (0: moves with the image)")
axis.set_xlim(left=0)
axis.invert_yaxis()
axis.legend(loc="upper center", bbox_to_anchor=(0.4, 1.14), ncols=3, frameon=False)
plt.show()

# %% [markdown]
# Occlusion and Grad-CAM, the two coarse and smooth maps, move with the image best; but Grad-CAM's
# maps of different images are alike, too, so its head start is smaller than its bar. The gradient
# maps lie between 1.5 and 1.7 under whole-pixel shifts, not far from the 2 of another image's
# map. Integration and smoothing help somewhat: the error bars, one standard error, overlap, so do
# not rank neighbours. The rotation column is lower partly because turning a grainy map back
# interpolates it, which smooths it.
#
# `LieDerivative` has no privilege here. It is made of the same gradients, and under shifts it
# moves no better than saliency. Where its picture should be stable, smooth it.
#
# ## Infinitely small motions
#
# The Lie derivative works for explanations, too: `lie_derivative` with `output_layout=NCHW`
# gives $L f = J_f\,\xi(x) - \xi(f(x))$, the rate at which the map changes minus the rate at which
# it should. The function must be differentiable, so here the gradient map is written with
# `torch.func.grad`. Relative to $\|\xi(f(x))\|^2$ the scale is: 0 for a map that moves with its
# image, 1 for one that stands still.

# %%
few_labels = labels[:N]
still = get_group("rotation", interpolation="central")
rows = {}
for name in ("cnn", "cnn_blur", "vit", "mixer"):
    network = load_model(name)

    def gradient(images, network=network):
        def score(images):
            return network(images).gather(1, few_labels[:, None]).sum()

        return torch.func.grad(score)(images)

    derivative = lie_derivative(gradient, few, still, output_layout=NCHW)
    expected = still.generator(gradient(few).detach())
    rows[name] = {
        "‖L f‖² / ‖ξ(f)‖²": (derivative.square().sum() / expected.square().sum()).item(),
        "‖J ξ(x)‖² / ‖ξ(f)‖²": (
            (derivative + expected).square().sum() / expected.square().sum()
        ).item(),
    }
pd.DataFrame(rows).T

# %% [markdown]
# For both CNNs the answer is exactly 1 and 0: their gradient map does not change *at all* under
# an infinitely small rotation, while the image does. ReLU and max pooling make the logits
# piecewise linear, so the gradient is constant until some unit switches, and then it jumps. The
# transformer's and the mixer's maps do change, but not as the image does: an error above 1 is
# worse than standing still.
#
# ## Infidelity: faithful to which change?
#
# Captum's `infidelity` perturbs the image, predicts the change of the score from the map, and
# compares with the true change. It depends on the perturbation, and each method stands for one:
#
# - noise $n$ on every pixel: $x - n$; the prediction is $\sum n\,a$;
# - every pixel loses a random share $r$ of its own value: $x - r x$; the prediction is
#   $\sum r\,a$;
# - every pixel makes a random share $r$ of the rotation: $x - r\,\xi(x)$; the prediction is
#   $\sum r\,a$.
#
# Maps are scaled optimally (`normalize=True`). Divided by the infidelity of an empty map, the
# number is the share of the change that the map does *not* explain.

# %%
rotation = get_group("rotation")


def noise(images):
    n = 0.0005 * torch.randn_like(images)
    return n, images - n


def share_of_value(images):
    r = 0.0012 * torch.randn_like(images)
    return r, images - r * images


def share_of_rotation(images):
    r = 0.0006 * torch.randn_like(images)
    return r, images - r * rotation.generator(images)


perturbations = {
    "noise": noise,
    "share of the value": share_of_value,
    "share of the rotation": share_of_rotation,
}
target = model(few).argmax(1)
draws = {"target": target, "n_perturb_samples": 10 if SMALL else 100}
rows = {}
for name, method in methods.items():
    attribution = method(few, target).detach().expand_as(few)
    rows[name] = {}
    for what, perturb in perturbations.items():
        torch.manual_seed(0)
        wrong = infidelity(model, perturb, few, attribution, normalize=True, **draws)
        torch.manual_seed(0)
        empty = infidelity(model, perturb, few, torch.zeros_like(few), **draws)
        rows[name][what] = (wrong / empty).median().item()
unexplained = pd.DataFrame(rows).T

figure, axis = plt.subplots(figsize=(7.5, 4.2), layout="constrained")
drawn = axis.imshow(unexplained, cmap="viridis_r", vmin=0, vmax=1, aspect="auto")
for (row, column), value in np.ndenumerate(unexplained.to_numpy()):
    colour = "white" if value > 0.5 else "black"
    axis.text(column, row, f"{value:.3f}", ha="center", va="center", color=colour)
axis.set_xticks(range(3), unexplained.columns)
axis.set_yticks(range(len(unexplained)), unexplained.index)
figure.colorbar(drawn, label="share not explained (median over images)")
plt.show()
print("root mean square change of a pixel:")
for what, perturb in perturbations.items():
    torch.manual_seed(0)
    print(f"  {what:22} {(perturb(few)[1] - few).square().mean().sqrt():.5f}")

# %% [markdown]
# Each method wins where it is asked its own question: saliency for noise, input × gradient for
# changes in proportion to the value, `LieDerivative` for parts of a motion. Saliency and input ×
# gradient, which are alike, also explain two thirds of each other's change. But nothing except
# `LieDerivative` accounts for the rotation, and it accounts for nothing else. Smoothing costs
# nearly all of this faithfulness. (This network is piecewise linear: what even the right method
# leaves comes from units that switch within the perturbation.) So do not ask which map is the
# most faithful, but which change you want explained.
#
# ## Sensitivity: does the map survive noise?
#
# `sensitivity_max` is the largest relative change of the map, here among four random changes of
# the image by at most 0.01 in any pixel. 0 is a map that stays, 1 a change as large as the map
# itself. The class to explain is held fixed.

# %%
probes = images[: 4 if SMALL else 16]
classes = model(probes).argmax(1)
rows = {}
for name, method in methods.items():

    def explained(inputs, target, method=method):
        return (method(inputs[0], target),)  # Captum passes a tuple and wants one

    torch.manual_seed(0)
    change = sensitivity_max(
        explained, probes, perturb_radius=0.01, n_perturb_samples=4, target=classes
    )
    rows[name] = {
        "median": change.median().item(),
        "lowest": change.min().item(),
        "highest": change.max().item(),
    }
sensitivity = pd.DataFrame(rows).T.sort_values("median")
figure, axis = plt.subplots(figsize=(8, 3.4), layout="constrained")
place = np.arange(len(sensitivity))
axis.hlines(place, sensitivity["lowest"], sensitivity["highest"], color="0.6")
axis.plot(sensitivity["median"], place, "o")
axis.set_yticks(place, sensitivity.index)
axis.set(xlabel="sensitivity (median and range over images)", xlim=(0, None))
axis.invert_yaxis()
plt.show()
sensitivity

# %% [markdown]
# The coarse maps hardly notice. All gradient maps, `LieDerivative` among them, change by more
# than half their size in the median: this CNN's gradients turn quickly. Smoothing helps saliency,
# and not `LieDerivative`. (Captum draws the noise anew for the perturbed images, so the number of
# a smoothed map includes the noise of its own sixteen samples.)
#
# ## In short
#
# - `LieDerivative` has Captum's interface and works inside `NoiseTunnel`, `infidelity` and
#   `sensitivity_max`; under `"brightness"` it is `InputXGradient`.
# - It tells which pixels change a score *when the image moves*, and is faithful to that alone.
# - Explanations can be tested for equivariance with the tools for models. Those made of plain
#   gradients fail here, `LieDerivative` too; coarse ones do better.
# - All of this is one small CNN on small crops. Run it on your own model: change `load_model`.
