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
# # Where does it come from: the error of every layer
#
# A classifier's probabilities should not move when the image does. They do; `01_getting_started`
# measures how much. This notebook asks which layers are to blame, in a convolutional network, its
# blur-pooled twin, a vision transformer and an MLP-Mixer. Then it looks at the mechanism,
# aliasing, in the spectra of their features.

# %%
import os

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from IPython.display import display
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import captum_lie
from captum_lie import (
    LayerwiseEquivarianceError,
    SubnetworkEquivarianceError,
    aliasing_error,
    get_group,
    lie_derivative,
)
from captum_lie.examples import MODEL_NAMES, load_images, load_model
from captum_lie.examples.models import BlurPool
from captum_lie.examples.photographs import find_photographs
from captum_lie.images import ImageFiles, view_of
from captum_lie.layerwise import LayerwiseSampledError, layer_maps
from captum_lie.layouts import NCHW
from captum_lie.models import load_model as load_by_name
from captum_lie.plotting import COLOURS, plot_depth, plot_icicle, plot_layer_maps
from captum_lie.resampling import slope
from captum_lie.results import leading_calls

try:
    from captum_lie_timm.imagenet import available
except ImportError:  # timm is not installed
    available = list

# %matplotlib inline
SMALL = os.environ.get("CAPTUM_LIE_TUTORIALS") == "small"
N = 16 if SMALL else 256
plt.rcParams.update({"figure.dpi": 100, "font.size": 9, "image.interpolation": "nearest"})
pd.options.display.float_format = "{:.3g}".format
images, labels = load_images(N)
models = {name: load_model(name) for name in MODEL_NAMES}
print("captum-lie", captum_lie.__version__, "·", N, "images ·", ", ".join(models))

# %% [markdown]
# ## One layer's share
#
# Write the network as modules one after another, $x_{i+1} = f_i(x_i)$. The image moves along its
# tangent $\xi(x_0)$, and each feature map has a tangent of its own, $\xi(x_i)$: the same motion on
# its own pixels. If module $i$ is equivariant, moving its input moves its output,
# $J_i\,\xi(x_i) = \xi(x_{i+1})$. Otherwise there is a local error
# $e_i = J_i\,\xi(x_i) - \xi(x_{i+1})$, and the rest of the network carries it to the output:
#
# $$ L f = \sum_i C_i, \qquad C_i = J_{\text{rest}}\; e_i . $$
#
# The sum telescopes, so nothing is lost and nothing is counted twice (Gruver et al., arXiv
# 2210.02984, Eq. 6). To get one number for each module, take the part of $C_i$ that points along
# the whole error: $\langle L f, C_i \rangle / K$ for $K$ classes. That is the measure `aligned`. It
# has a sign, for a module can compensate what another has done, and it sums to LEE,
# $\|L f\|^2 / K$.

# %%
shift = get_group("translation_x", interpolation="central")
method = LayerwiseEquivarianceError(models["cnn"])
result = method.attribute(images, group=shift)
table = result.to_dataframe()
print(f"LEE of the network            {result.total.mean():.6f}")
print(f"sum of self contributions     {table['self_contribution'].sum():.6f}")
print(f"largest difference, any image {result.unattributed.abs().max():.1e}")
print(f"leaves with a share of their own: {result.resolved_share:.0%}")
columns = ["module", "type", "input_layout", "output_layout", "contribution", "self_contribution"]
table[[*columns, "stderr"]].set_index("module")

# %% [markdown]
# A row is one call of one module. Its `contribution` holds all that happens within it; its
# `self_contribution` is what its children do not explain, so that the second column sums to LEE.
# `stderr` is the standard error of the mean over the images: large, because few images near a
# decision boundary make up most of LEE.
#
# The layouts say where a tensor's pixels are: `nchw` is a feature map, `tokens[8x8]` a sequence of
# patches, and `trivial` a vector that should not move with the image (after global pooling there is
# nothing left to blame: the classifier's row is zero). They are inferred from the modules and
# shapes. Where they cannot be, a module's share is given to the module around it, never guessed.
#
# We use the `central` rule between pixels, for the reason given at the end of the first notebook:
# with the default `bilinear` one, the slight sharpening that comes with the shift makes up most
# of the error of such small crops.
#
# ## Four networks along depth

# %%
results = {
    name: LayerwiseEquivarianceError(model).attribute(images, group=shift)
    for name, model in models.items()
}
titles = [f"{name}: LEE {r.total.mean():.3g}" for name, r in results.items()]
plot_depth(*results.values(), titles=titles)

# %% [markdown]
# In the CNN six tenths of the error come from the very first activation, a quarter from the
# subsampling of all stages together: `stem.maxpool` and the two convolutions of stride 2. The twin
# with a blur before each subsampling has a fifth of the CNN's error. Its subsampling adds less than
# half as much as before, and its activations a seventh, although they are the same function in the
# same place. What counts is how much of a local error *reaches the output*, and the blur that
# follows takes away the fine detail that an activation makes.
#
# The transformer and the mixer are of another kind: practically all of their error is the patch
# embedding's, which cuts the image into tokens of 4 × 4 pixels, subsampling by four at one stroke.
# The small bars after it mostly cancel. (The error bars belong to each bar alone. The errors of
# neighbours are anything but independent, since the same few images make them all.)
#
# ## By kind of layer, for two motions


# %%
def by_kind(result):
    table = result.to_dataframe()
    return table.groupby("kind")["self_contribution"].sum() / table["self_contribution"].sum()


turn = get_group("rotation", interpolation="central")
rotated = {
    name: LayerwiseEquivarianceError(model).attribute(images, group=turn)
    for name, model in models.items()
}
figure, axes = plt.subplots(1, 2, figsize=(10, 3.2), layout="constrained", sharey=True)
for axis, found in zip(axes, (results, rotated)):
    shares = pd.DataFrame({name: by_kind(r) for name, r in found.items()}).fillna(0).T
    left = {True: np.zeros(len(shares)), False: np.zeros(len(shares))}
    for kind in COLOURS:
        if kind in shares:
            for positive in (True, False):
                part = shares[kind].clip(lower=0) if positive else shares[kind].clip(upper=0)
                axis.barh(
                    shares.index,
                    part,
                    left=left[positive],
                    color=COLOURS[kind],
                    label=kind if positive else None,
                )
                left[positive] += part.to_numpy()
    axis.axvline(0, color="0.3", lw=0.6)
    axis.set(title=found["cnn"].group, xlabel="share of LEE")
    axis.invert_yaxis()
axes[0].invert_yaxis()
figure.legend(
    *axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False
)
plt.show()
shares.T.round(3)

# %% [markdown]
# Shares are signed and sum to one. The table below the picture is that of the rotation. Turning the
# image gives the same answer for the transformer and the mixer, and another one for the CNNs: now
# their *convolutions* count. A convolution commutes with shifts whatever its filter is, but with
# rotations only if the filter itself is round, and nobody asked it to be.
#
# Is that so in a network that people use? EfficientNet-Lite0, trained on ImageNet (its weights come
# with the extra `imagenet`), on photographs of 224 pixels. By kind, for both motions:

# %%
NAME, known = "imagenet:efficientnet_lite0", find_photographs()
SCENES = ("chelsea", "coffee", "astronaut", "flower")[: 1 if SMALL else 4]
if NAME in available() and known.keys() >= set(SCENES):
    large = load_by_name(NAME)
    files = ImageFiles([known[name] for name in SCENES])
    scenes = torch.stack([files.read(i, view_of(large)) for i in range(len(files))])
    trained = [LayerwiseEquivarianceError(large).attribute(scenes, group=g) for g in (shift, turn)]
    display(
        plot_depth(
            *trained, titles=[f"lite0, {r.group}: LEE {r.total.mean():.3g}" for r in trained]
        )
    )
    display(pd.DataFrame({r.group: by_kind(r) for r in trained}).round(3))
else:
    print("Not shown: needs the extra and scikit-learn, pip install 'captum-lie[imagenet]'.")

# %% [markdown]
# In outline, yes: convolutions have the largest share under rotation, 0.55, and less under the
# shift, 0.36, where a convolution of stride 1 can err only at the border, by its zero padding.
# Subsampling has about four tenths of either, nearly all of it at the first strides. But read the
# error bars before the bars: with four photographs most of the large ones are within one or two
# errors of zero, and shares that add up to one hide that.
#
# ## The tree
#
# Modules nest, and so do their shares. In an icicle each box is a module; its children lie below
# it. It is as wide as the absolute shares within it, and coloured by its own contribution, red
# where it adds to the error, blue where it compensates.

# %%
plot_icicle(*(results[name] for name in ("cnn", "vit", "mixer")), titles=["cnn", "vit", "mixer"])

# %% [markdown]
# Reading down the left side of the CNN: `stem`, within it `act`. In the transformer, `attention`
# and `mlp` of the first block lie side by side, pale red and blue; in later blocks there is hardly
# anything left.
#
# The same trees are interactive in the page that `captum-lie layers` writes (point at a box and
# read its layouts):
#
# ```console
# captum-lie layers --model cnn --model vit --groups translation_x,rotation --out layers
# ```
#
# ## Where in the image
#
# The share of a layer is a sum over its output, $\langle g, e_i\rangle$ with $g$ the gradient that
# arrives there. Left unsummed, it is a map.

# %%
index = int(results["cnn"].total.topk(8).indices[3])
one = images[index : index + 1]
for name in ("cnn", "vit"):
    leading = leading_calls(LayerwiseEquivarianceError(models[name]).attribute(one, shift), 5)
    found = layer_maps(models[name], one, [module for module, _ in leading], shift)
    maps = [(m.module.removeprefix("stages."), m.attribution, m.layout) for m in found]
    display(plot_layer_maps(one[0], maps))

# %% [markdown]
# The titles give each map's sum. For the CNN, `stem.conv` is at fault in the first and last
# columns only. There, zero padding meets the image; everywhere else a convolution of stride 1
# moves with its input. `stem.act` errs in single pixels along edges, where it switches on or off.
# In the deeper layers red and blue lie side by side and much of them cancels. For the transformer
# a map has one square per token.
#
# ## Signed shares and norms
#
# The paper measures each layer by the norm $\|C_i\|^2$ instead: how large its part is, whatever the
# others do. Norms do not add up, and the largest need not be the most to blame. Here they are exact
# (the paper estimates them from random probes).

# %%
few = images[: 8 if SMALL else 64]
method = LayerwiseEquivarianceError(models["vit"])
aligned = method.attribute(few, shift).to_dataframe()
norm = method.attribute(few, shift, measure="norm")
print("norms:", norm.method)
both = pd.DataFrame(
    {
        "module": aligned["module"],
        "aligned": aligned["self_contribution"],
        "norm": norm.to_dataframe()["self_contribution"],
    }
).set_index("module")
print(
    f"LEE {norm.total.mean():.3g}, sum of aligned {both['aligned'].sum():.3g}, "
    f"sum of norms {both['norm'].sum():.3g}"
)
both.nlargest(8, "norm")

# %% [markdown]
# `stem.proj` leads either way. But the norms sum to more than the LEE that they are meant to
# explain, and they hide that the first attention *compensates*: its share is negative. Use
# `aligned` to explain a number and `norm` to compare with the paper. For a model with a thousand
# classes an exact norm takes a thousand backward passes, or one forward-mode pass for a few
# modules at a time; the cheaper way is chosen, and `n_probes=` estimates.
#
# ## Aliasing: what subsampling does to a shift
#
# Why should a layer not commute with shifts? A convolution with stride 1 does, except at the
# border. The trouble comes with *subsampling*. Take a wave of frequency $n$ (cycles per image) and
# keep every second pixel. If $n$ is above the new Nyquist limit, the samples are those of a slower
# wave, its *alias* $a(n)$. Now shift the image: the fast wave moves on by some part of its period,
# and the alias by the same part of its own, longer one: too far, and here backwards.

# %%
size, n = 16, 6
alias = (n + 4) % 8 - 4
x = torch.arange(size)
fine = torch.linspace(0, size, 400)
figure, axes = plt.subplots(1, 2, figsize=(10, 2.6), layout="constrained", sharey=True)
for axis, moved in zip(axes, (0.0, 1.0)):
    phase = 2 * torch.pi * n * moved / size
    axis.plot(fine, torch.cos(2 * torch.pi * n * fine / size - phase), "0.75", label=f"n = {n}")
    axis.plot(x[::2], torch.cos(2 * torch.pi * n * x[::2] / size - phase), "ko", label="samples")
    axis.plot(
        fine,
        torch.cos(2 * torch.pi * alias * fine / size - phase),
        "C3",
        label=f"what they show: a(n) = {alias}",
    )
    if moved:
        should = torch.cos(2 * torch.pi * alias * (fine - moved) / size)
        axis.plot(fine, should, "C0--", label="where it should have moved")
    axis.set(title=f"shifted by {moved:g} pixels", xlabel="pixel")
figure.legend(
    *axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False
)
plt.show()
print(f"frequency {n}, alias {alias}: it moves {n / alias:g} times as fast as it should")

# %% [markdown]
# Theorem 1 of the paper makes this exact. The alias moves $n / a(n)$ times as fast as it should, so
# each harmonic $X_n$ adds $2\pi i\,(n - a(n))\,X_n$ to the Lie derivative of subsampling; below the
# Nyquist limit $a(n) = n$ and there is no error. `aliasing_error` computes the LEE from the
# spectrum, with nothing differentiated. The exact derivative of slicing must agree:

# %%
moving = get_group("translation_x", interpolation="fourier")  # periodic and band-limited
x = images[:4].double()
moved = lie_derivative(lambda x: x[..., ::2, ::2], x, moving)  # J ξ(x): how the samples move
pixels = (x.shape[-1] - 1) / 2 / 2  # output pixels for one unit of the group
should_move = pixels * slope(x[..., ::2, ::2], -1, "fourier", "circular")  # ξ of the samples
error = (moved - should_move).square().mean((1, 2, 3))
pd.DataFrame({"by differentiating": error, "by Theorem 1": aliasing_error(x, 2)})

# %% [markdown]
# The two agree to the last digit shown, for real images, in which waves that share an alias
# interfere. (In these tables a unit is half the image, and the image is taken for periodic, as the
# theorem does.)
#
# ## Spectra before subsampling
#
# So what matters is how much of a feature map lies above the Nyquist limit of what comes next.
# Below: the horizontal spectra of the features that the CNN's two strided convolutions, and the
# blurs in their place in the twin, are about to thin out; and in the table what Theorem 1 makes of
# them, relative to how much the kept samples move.


# %%
def before_thinning(name, stage):
    """Features of the stage's subsampling at the size that they have before it."""
    inputs = []
    down = models[name].stages[stage].down
    handle = down.register_forward_hook(lambda module, args, output: inputs.append(args[0]))
    with torch.no_grad():
        models[name](images[:64])
        handle.remove()
        if name == "cnn":  # a convolution of stride 2 is one of stride 1, thinned out
            return {"cnn": F.conv2d(inputs[0], down.conv.weight, padding=1)}
        sharp = down[:3](inputs[0])
        return {
            "cnn_blur, before its blur": sharp,
            "cnn_blur, blurred": BlurPool(sharp.shape[1], stride=1)(sharp),
        }


def spectrum(x):
    """Share of the variance at each horizontal frequency."""
    power = torch.fft.rfft(x - x.mean((-2, -1), keepdim=True)).abs().square().mean((0, 1, 2))
    return (power / power.sum()).numpy()


figure, axes = plt.subplots(1, 2, figsize=(10, 3.2), layout="constrained")
rows = {}
for stage, axis in enumerate(axes):
    found = before_thinning("cnn", stage) | before_thinning("cnn_blur", stage)
    for (name, x), style in zip(found.items(), ("C3o-", "0.6", "C0o-")):
        axis.semilogy(spectrum(x), style, label=name)
        motion = (x.shape[-1] - 1) / 2 * slope(x, -1, "fourier", "circular")[..., ::2, ::2]
        rows.setdefault(name, {})[f"stages.{stage}.down"] = (
            aliasing_error(x, 2).sum() / motion.square().mean((1, 2, 3)).sum()
        ).item()
    limit = x.shape[-1] / 4
    axis.axvspan(limit, 2 * limit, color="0.93", zorder=0)
    axis.text(1.5 * limit, axis.get_ylim()[1] * 0.6, "will alias", ha="center", va="top")
    axis.set(title=f"stages.{stage}.down", xlabel="cycles per image", ylabel="share of variance")
axes[0].legend(frameon=False)
plt.show()
pd.DataFrame(rows).T

# %% [markdown]
# Before the blur both networks have features with much the same spectra: about a quarter of the
# variance in `stages.0.down` lies in the grey zone. The blur takes most of that away. The aliasing
# error drops by a quarter to a half, not to nothing: [1, 2, 1] / 4 is a mild filter, which leaves a
# wave at the new Nyquist limit at half its height. A wider one would do better, at the price of
# detail.
#
# ## Non-linearities alias, too
#
# The largest bar of the CNN was an activation, and it subsamples nothing. But it makes *new*
# frequencies: squaring a wave doubles its frequency, and ReLU has a kink, whose spectrum has no
# end. What exceeds the limit of the grid that the activation works on is aliased on the spot.
# Below: photographs, band-limited to fewer and fewer frequencies, under a pointwise function, and
# under subsampling for comparison.


# %%
def low_pass(x, cutoff):
    frequency = torch.fft.fftfreq(x.shape[-1], 1 / x.shape[-1]).abs()
    keep = (frequency[:, None] <= cutoff) & (frequency <= cutoff)
    return torch.fft.ifft2(torch.fft.fft2(x) * keep).real


pointwise = {
    "square": torch.square,
    "GELU": lambda z: F.gelu(2 * z),
    "ReLU": F.relu,
    "subsampling by 2": None,
}
cutoffs = range(1, 16)
grey = images[:16].double().mean(1, keepdim=True)
rows = {}
for name, function in pointwise.items():
    rows[name] = []
    for cutoff in cutoffs:
        z = low_pass(grey, cutoff)
        z = (z - z.mean((2, 3), keepdim=True)) / z.std((2, 3), keepdim=True)
        if function is None:
            wrong = aliasing_error(z, 2).sum()
            motion = moving.generator(z)[..., ::2, ::2]
        else:
            derivative = lie_derivative(function, z, moving, output_layout=NCHW)
            wrong = derivative.square().mean((1, 2, 3)).sum()
            motion = lie_derivative(function, z, moving)
        rows[name].append((wrong / motion.square().mean((1, 2, 3)).sum()).item())
figure, axis = plt.subplots(figsize=(7, 3.4), layout="constrained")
for name, values in rows.items():
    axis.semilogy(cutoffs, np.maximum(values, 1e-7), "o-", ms=3, label=name)
axis.axvline(8, color="0.7", lw=0.8)
axis.text(8.1, 2e-7, "new Nyquist limit of subsampling", fontsize=8, color="0.4")
axis.set(
    xlabel="highest frequency of the image (cycles per image; 16 is the limit of the grid)",
    ylabel="‖L f‖² / ‖J ξ(x)‖²",
)
axis.legend(frameon=False)
plt.show()
pd.DataFrame(rows, index=pd.Index(cutoffs, name="highest frequency")).loc[[4, 7, 8, 11, 15]]

# %% [markdown]
# Theory to the letter: the square is exact up to frequency 7, since 2 · 7 < 16 still fits the
# grid, and subsampling by two up to 7, below its own new limit of 8. ReLU has an error at every
# frequency, GELU a smaller one, which vanishes for smooth images. (What is below 1e-7 is drawn
# there.) So a network of smooth activations on smooth features would be nearly equivariant, and
# this is why some generators upsample before each activation.
#
# ## A network without error
#
# The theory says what a network would need: circular convolutions of stride 1 commute with a
# `fourier` shift, exactly, and global pooling takes the shift away. If the decomposition is right,
# every row must be zero, and spoiling one layer must show in that layer's row alone.


# %%
def stack(*extra):
    torch.manual_seed(0)
    first = nn.Conv2d(3, 8, 3, padding=1, padding_mode="circular")
    second = nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular")
    return nn.Sequential(first, *extra, second, nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()


rows = {}
for name, extra in {
    "linear, stride 1": (),
    "with ReLU": (nn.ReLU(),),
    "with subsampling by 4": (nn.Conv2d(8, 8, 1, stride=4),),
}.items():
    network = stack(*extra).eval()
    found = LayerwiseEquivarianceError(network, output_fn=None).attribute(few.double(), moving)
    shares = found.to_dataframe().set_index("type")["self_contribution"]
    rows[name] = {"LEE": found.total.mean().item()} | shares.groupby(level=0).sum().to_dict()
pd.DataFrame(rows).T.drop(columns=["Sequential", "Flatten"])

# %% [markdown]
# The linear network has no error, to rounding, and each of its layers none. One ReLU brings some,
# all of it in its own row. Subsampling brings more, all in its own row, although the convolution
# that does it is linear.
#
# ## How the error builds up
#
# Another question: how far from equivariant is the network *up to* a layer, as a feature extractor?
# `SubnetworkEquivarianceError` answers for every layer with one forward-mode pass. These numbers
# do not add up to anything. To compare features of different sizes, divide by how much the
# features themselves move, $\|\xi(x_i)\|$: 0 means that they move with the image.

# %%
heads = {
    name: SubnetworkEquivarianceError(model).attribute(few, shift) for name, model in models.items()
}
figure, axis = plt.subplots(figsize=(8, 3.4), layout="constrained")
rows = {}
for name, result in heads.items():
    table = result.to_dataframe()
    table = table[table["is_leaf"]].dropna(subset="relative_to_generator")
    depth = np.linspace(0, 1, len(table))
    axis.plot(depth, table["relative_to_generator"], "o-", ms=3, label=name)
    rows[name] = table.iloc[[1, len(table) // 2, -1]][["module", "relative_to_generator"]]
axis.axhline(1, color="0.7", lw=0.8)
axis.set(
    xlabel="relative depth (leaf modules)",
    ylabel=r"$\|L f_{1..i}\| \; / \; \|\xi(x_i)\|$",
    ylim=(0, None),
)
axis.legend(frameon=False)
plt.show()
pd.concat(rows)

# %% [markdown]
# At one (the grey line) the error is as large as the motion itself: that is what features would
# have that stand still. Above one they change faster than moving features would. In the CNN the
# error builds up at each subsampling, in the twin more slowly. In the transformer and the mixer it
# is there from the patch embedding on. The transformer's peaks are its attentions: their output is
# nearly the same for all tokens, so it should hardly move at all. On a grid of 4 × 4 the motion of
# features is a rough notion; read the right end with that in mind.
#
# ## Beside sampling
#
# Before the Lie derivative, people fed each layer with shifted *features* and compared. EQ-T by
# layer is such a metric: finite shifts, each layer alone, whatever the rest of the network makes of
# the difference. It comes with the package, for comparison (the paper's App. D.1).

# %%
loader = DataLoader(TensorDataset(few), batch_size=32)
(sampled,) = LayerwiseSampledError(models["cnn"]).evaluate(loader, "eq_t", n_samples=2)
sampled.plot("relative_to_change")

# %% [markdown]
# At 1 a layer is as wrong as if it did not move at all. Whole-pixel shifts see neither kind of
# aliasing: activations commute with them exactly, and so do strided layers when, as here, the shift
# is by whole pixels of the coarser grid. What is left is the border, where zero padding meets the
# reflected surroundings, and on a small grid much lies near the border. (EQ-T with fractional
# shifts, `eq_t_frac`, does see aliasing.) And each bar has a scale of its own: they do not add up,
# and do not tell what matters to the network's answer.
#
# ## In short
#
# - `LayerwiseEquivarianceError` splits LEE over all modules, exactly: the self contributions sum to
#   it. One forward-mode, one forward and one backward pass.
# - A layer's share is its local error *as it reaches the output*; a later layer can undo it, and a
#   share can be negative.
# - Subsampling aliases what lies above the new Nyquist limit, and activations alias what they make.
#   Theorem 1 gives the first in closed form.
# - In the small networks here, the patch embedding is to blame in the transformer and the mixer,
#   activations and subsampling in the CNN, less so with a blur.
#
# Next: `03_beside_saliency` puts pixel attributions beside Captum's; `05_real_timm_models` does
# this notebook's work on models that people use.
