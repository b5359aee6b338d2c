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
# # Real timm models: which layers of which architecture
#
# The earlier notebooks used small embedded networks. This one takes architectures from
# [timm](https://github.com/huggingface/pytorch-image-models) at 224 × 224 pixels, on photographs,
# and draws what the paper's Figure 4 draws: how much each layer, and each kind of layer, adds to
# the error under translation. On the way it shows how the layouts of a model that was never seen
# before are found, and what to do when one is not.

# %%
import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

# %matplotlib inline
SMALL = os.environ.get("CAPTUM_LIE_TUTORIALS") == "small"


def reachable(address, seconds=3):
    try:
        socket.create_connection((urlsplit(address).hostname, 443), seconds).close()
    except OSError:
        return False
    return True


# Without a hub to ask, pretrained weights come from the cache, or not at all.
if SMALL or not reachable(os.environ.get("HF_ENDPOINT", "https://huggingface.co")):
    os.environ["HF_HUB_OFFLINE"] = "1"

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import skimage.data
import timm
import torch
import torch.nn.functional as F
from IPython.display import display
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import captum_lie_timm
from captum_lie import LayerwiseEquivarianceError, LocalEquivarianceError, get_group
from captum_lie.layerwise import LayerwiseSampledError, layer_maps
from captum_lie.layouts import Layout
from captum_lie.models import load_model as load_by_name
from captum_lie.plotting import COLOURS, plot_depth, plot_icicle, plot_layer_maps
from captum_lie.results import leading_calls
from captum_lie_timm.imagenet import available

plt.rcParams.update({"figure.dpi": 100, "font.size": 9})
pd.options.display.float_format = "{:.3g}".format
print(
    "hub:",
    "offline" if os.environ.get("HF_HUB_OFFLINE") else "reachable",
    "· timm",
    timm.__version__,
)

# %% [markdown]
# ## Weights: pretrained, local, or random
#
# `captum_lie_timm.load(name)` gives a timm model in evaluation mode that takes *plain* images in
# [0, 1]; the normalisation that belongs to its weights is its first layer, so that "brightness" and
# "rotation" mean those of the picture. It loads timm's pretrained weights from the hub or the
# cache. `checkpoint=` takes a local file instead, and `pretrained=False` random weights.
#
# This notebook takes `NAME.safetensors` or `NAME.pth` from the folder that the environment variable
# `CAPTUM_LIE_CHECKPOINTS` names, if there is such a file; else it asks for pretrained weights; and
# falls back on random ones, with the classifier drawn anew, since timm sets some to zero. **The
# table says which you are looking at.**

# %%
NAMES = ["resnet18", "convnext_atto", "vit_tiny_patch16_224", "mixer_s16_224"]


def local_checkpoint(name):
    folder = Path(os.environ.get("CAPTUM_LIE_CHECKPOINTS", "."))
    files = [folder / f"{name}{ending}" for ending in (".safetensors", ".pth")]
    return next((file for file in files if file.is_file()), None)


def load(name):
    """A model, and where its weights come from."""
    file = local_checkpoint(name)
    if file is not None:
        return captum_lie_timm.load(name, checkpoint=file), f"local file {file.name}"
    try:
        return captum_lie_timm.load(name), "pretrained"
    except RuntimeError:  # no hub, and nothing in the cache
        torch.manual_seed(0)
        model = captum_lie_timm.load(name, pretrained=False)
        nn.init.normal_(model.model.get_classifier().weight, std=0.02)
        return model, "random"


models, weights = {}, {}
for name in NAMES:
    models[name], weights[name] = load(name)
pd.DataFrame(
    {
        "weights": weights,
        "input size": {name: str(m.input_size) for name, m in models.items()},
        "parameters (millions)": {
            name: sum(p.numel() for p in m.parameters()) / 1e6 for name, m in models.items()
        },
        "modules": {name: len(list(m.modules())) for name, m in models.items()},
    }
)

# %% [markdown]
# If the table says *random*, what follows is about the architectures as they are born: which layers
# can respect a shift, before anything is learned. That is a fair question, and a good test of the
# method, but no statement about trained models. For random weights we look at the raw scores, since
# a softmax over a thousand nearly equal scores is flat; for trained ones at the probabilities.
#
# ## Photographs

# %%
shown = ["astronaut", "chelsea", "coffee", "rocket", "hubble_deep_field", "retina"]
shown = shown[: 2 if SMALL else 6]


def photograph(name, size=224):
    """The central square of a photograph that comes with scikit-image, ``[1, 3, size, size]``."""
    x = torch.from_numpy(getattr(skimage.data, name)().copy()).permute(2, 0, 1)[None] / 255
    side = min(x.shape[-2:])
    top, left = (x.shape[-2] - side) // 2, (x.shape[-1] - side) // 2
    x = x[..., top : top + side, left : left + side]
    return F.interpolate(x, (size, size), mode="bilinear", antialias=True).clamp(0, 1)


images = torch.cat([photograph(name) for name in shown])
figure, axes = plt.subplots(1, len(shown), figsize=(10, 1.9), layout="constrained")
for axis, image, name in zip(axes, images, shown):
    axis.imshow(image.permute(1, 2, 0))
    axis.set_title(name, fontsize=8)
    axis.axis("off")
plt.show()

# %% [markdown]
# ## How much in all
#
# LEE depends on the scale of the outputs, which differs from model to model, and for random weights
# means nothing by itself. *Relative* LEE compares with tangents of the same norm and spectrum, but
# scrambled phase: at 1 the motion is nothing special to the model.

# %%
shift, turn = (get_group(n, interpolation="central") for n in ("translation_x", "rotation"))


def output_fn(name):
    return None if weights[name] == "random" else (lambda scores: scores.softmax(-1))


loader = DataLoader(TensorDataset(images), batch_size=2)
tables = []
for name, model in models.items():
    method = LocalEquivarianceError(model, output_fn=output_fn(name))
    tables.append(method.evaluate(loader, [shift, turn]).assign(model=name, weights=weights[name]))
pd.concat(tables).set_index(["model", "weights", "group"])

# %% [markdown]
# With random weights every model stands near 1 (0.69 to 1.2), as it should: before training, a
# shift is to the network a change like any other of its size. The patch models lie somewhat
# below, since a patch averages over many pixels, which favours the low frequencies that make up
# real tangents. A model that has learned to disregard shifts would lie below its untrained twin.
# Six images make a rough estimate: `stderr` is up to four fifths of `lee`.
#
# ## Layouts, found
#
# To say what a layer contributes one must know which axes of its tensors are space. A ResNet's are
# plain (`nchw`); ConvNeXt turns some to `nhwc`; a transformer has `tokens[1+14x14]`, one class
# token and a grid; a mixer also `tokens_first`, transposed. They are inferred from the modules,
# the shapes and the tensors seen before, and every row says what was found.

# %%
results = {
    name: LayerwiseEquivarianceError(model, output_fn=output_fn(name)).attribute(images, shift)
    for name, model in models.items()
}
rows = {}
for name, result in results.items():
    table = result.to_dataframe()
    layouts = table.loc[table["is_leaf"], "output_layout"].value_counts()
    rows[name] = {
        "module calls": len(table),
        "leaves resolved": f"{result.resolved_share:.0%}",
        "output layouts of leaves": ", ".join(f"{k} ({v})" for k, v in layouts.items()),
        "sum of shares / LEE": table["self_contribution"].sum() / result.total.mean().item(),
    }
with pd.option_context("display.max_colwidth", 120):
    display(pd.DataFrame(rows).T)

# %% [markdown]
# Every leaf of all four that does anything has its own share. (The transformer's `unknown` ones are
# identities and switched-off dropouts, which have none to give.) And the shares sum to LEE: the
# last column is 1, up to rounding in float32, which is the check that no derivative is wrong.
#
# ## Layouts, checked: registers and images that are not square
#
# Inference must not be fooled by tokens that are not pixels, nor take height for width. A
# transformer with registers, on an image of 96 × 160 pixels:

# %%
vit = timm.create_model("test_vit3", img_size=(96, 160), num_classes=8, reg_tokens=4).eval()
wide = F.interpolate(images[:2], (96, 160), mode="bilinear", antialias=True)
found = LayerwiseEquivarianceError(vit, output_fn=None).attribute(wide, shift)
print(
    type(vit).__name__,
    "·",
    vit.num_prefix_tokens,
    "prefix tokens · grid",
    vit.patch_embed.grid_size,
)
table = found.to_dataframe()
table[["module", "type", "input_layout", "output_layout"]].iloc[:14].set_index("module")

# %% [markdown]
# Four tokens that are not pixels, then a grid of 6 × 10 at the image's own aspect ratio: 64
# tokens, which might as well have been 8 × 8. The tensors that the first rows leave open pass
# through identities, and an identity has no share.
#
# ## Layouts, overridden
#
# Some modules do what no rule expects. This block treats an image as a sequence, row after row, and
# drops every second *row* only, so that its grid no longer has the image's shape. Its output could
# be other things, too, so it is called `unknown`, and its share is folded into the module around
# it. `layouts=` tells, by module name: a layout for both sides, or (input, output).


# %%
class DropRows(nn.Module):
    """Tokens of a grid of 14 × 14 to tokens of one of 7 × 14."""

    def forward(self, tokens):
        return tokens.unflatten(1, (14, 14))[:, ::2].flatten(1, 2)


class RowNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 32, 16, 16)
        self.drop = DropRows()
        self.mix = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))
        self.head = nn.Linear(32, 8)

    def forward(self, x):
        tokens = self.drop(self.embed(x).flatten(2).transpose(1, 2))
        return self.head((tokens + self.mix(tokens)).mean(1))


torch.manual_seed(0)
network = RowNet().eval()
grid = Layout("tokens", grid=(7, 14))
before = LayerwiseEquivarianceError(network, output_fn=None).attribute(images, turn)
after = LayerwiseEquivarianceError(
    network,
    output_fn=None,
    layouts={"drop": (None, grid), "mix": grid} | {f"mix.{i}": grid for i in range(3)},
).attribute(images, turn)
columns = ["module", "input_layout", "output_layout", "self_contribution"]
before.to_dataframe()[columns].merge(
    after.to_dataframe()[columns], on="module", suffixes=(" (inferred)", " (told)")
).set_index("module")

# %% [markdown]
# Told the truth, `drop` gets its own share, and the root keeps only what its own code does (the
# sum and the mean over tokens). The total is the same, of course: layouts decide who is blamed,
# not how much there is to blame. Here dropping rows is nothing beside the patch embedding. For a
# class of modules that you use often, `captum_lie.layouts.register` takes a rule once and for
# all; `captum_lie_timm` is a collection of such rules.
#
# A wrong layout is worse than none. If you are not sure, leave it folded.
#
# ## Side by side

# %%
titles = [f"{name} ({weights[name]} weights)" for name in models]
plot_depth(*results.values(), titles=titles)

# %% [markdown]
# One panel a model; the largest bars are named. With random weights nearly all of the error
# arises at the entrance: where a stride of 2, 4 or 16 meets a photograph in full detail. Later
# layers see features that the first ones have already thinned out.
#
# ## Trained beside untrained
#
# The extra `imagenet` brings weights that need no hub: `imagenet:efficientnet_lite0` is
# EfficientNet-Lite0 as its authors trained it (timm's `tf_efficientnet_lite0`). What has training
# changed? Above the trained model, on probabilities, below its twin with random weights, on raw
# scores. The table has the shares by kind, and the relative LEE.

# %%
NAME = "imagenet:efficientnet_lite0"
if NAME in available():
    pair = {
        "trained": (load_by_name(NAME), lambda scores: scores.softmax(-1)),
        "untrained": (load_by_name(NAME, pretrained=False), None),
    }
    lite, columns = {}, {}
    for name, (model, output) in pair.items():
        lite[name] = LayerwiseEquivarianceError(model, output_fn=output).attribute(images, shift)
        table = lite[name].to_dataframe()
        own = table.groupby("kind")["self_contribution"].sum()
        method = LocalEquivarianceError(model, output_fn=output)
        (row,) = method.evaluate(loader, [shift]).itertuples()
        columns[name] = (own / table["self_contribution"].sum()).to_dict() | {
            "relative LEE": row.relative_lee,
            "its standard error": row.relative_stderr,
        }
    display(plot_depth(*lite.values(), titles=[f"efficientnet_lite0, {name}" for name in lite]))
    display(pd.DataFrame(columns).round(3))
else:
    print("Not shown: needs the extra, pip install 'captum-lie[imagenet]'.")

# %% [markdown]
# Untrained, the error comes from the strides and the activations around them, the stem's stride
# first, as above. Training has turned the stem's own share slightly negative, and the activations
# and a first depthwise convolution lead; but six images leave error bars as large as most of
# these bars. What is not in doubt is the whole: the trained model reacts to a shift a fifteenth
# as much as to a scrambled change, its twin more than to one. (This is the `central` rule; the
# README's table takes the default, under which a shift also sharpens a little.)
#
# ## As in the paper's Figure 4

# %%
figure, (left, right) = plt.subplots(
    1, 2, figsize=(10, 3.4), layout="constrained", width_ratios=(1.2, 1)
)
shares = {}
for name, result in results.items():
    table = result.to_dataframe()
    own = table["self_contribution"].fillna(0) / table["self_contribution"].sum()
    shares[name] = own.groupby(table["kind"]).sum()
    right.plot(np.linspace(0, 1, len(own)), own.cumsum(), label=name)
shares = pd.DataFrame(shares).reindex(COLOURS).dropna(how="all").fillna(0)
for i, name in enumerate(shares):
    ends = {True: 0.0, False: 0.0}
    for kind, value in shares[name].items():
        left.barh(i, value, left=ends[value > 0], color=COLOURS[kind])
        ends[value > 0] += value
for kind in shares.index:
    left.barh(0, 0, color=COLOURS[kind], label=kind)
left.axvline(0, color="0.3", lw=0.6)
left.set_yticks(range(len(shares.columns)), shares.columns)
left.invert_yaxis()
left.set(xlabel="share of LEE (translation)")
left.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.4, -0.2), ncols=3, frameon=False)
right.axhline(1, color="0.7", lw=0.8)
right.set(xlabel="relative depth (module calls)", ylabel="shares of LEE, summed up to here")
right.legend(frameon=False)
plt.show()
shares.round(3)

# %% [markdown]
# On the left the shares by kind, as in the paper's Figure 4; on the right the same contributions
# added up from the input on. The patch models jump to their final value at once. ResNet-18 and
# ConvNeXt climb in stairs, one for each subsampling: the stem, then each `downsample`.
# (ConvNeXt's stem, a convolution of stride 4, counts as patch embedding.) The paper traces the
# error of trained models to aliasing, in such layers and in pointwise non-linearities; see
# the trained model above, and compare when the table at the top says *pretrained*.
#
# ## Each layer alone
#
# The right half of the paper's Figure 4 shifts the *features* in front of each layer by fractions
# of a pixel and compares, layer by layer, with no regard to the rest of the network:

# %%
few = DataLoader(TensorDataset(images[:2]), batch_size=2)
rows = {}
for name in ("resnet18", "vit_tiny_patch16_224"):
    (sampled,) = LayerwiseSampledError(models[name]).evaluate(few, "eq_t_frac", n_samples=1)
    rows[name] = sampled
figure, axes = plt.subplots(1, 2, figsize=(10, 2.8), layout="constrained")
for axis, (name, sampled) in zip(axes, rows.items()):
    table = sampled.to_dataframe()
    table = table[table["is_leaf"]].dropna(subset="relative_to_output")
    axis.bar(
        range(len(table)),
        table["relative_to_output"],
        width=1,
        color=[COLOURS[kind] for kind in table["kind"]],
    )
    axis.set(title=name, xlabel="leaf modules in order", ylabel="EQ-T (fractional), relative")
plt.show()
pd.DataFrame(
    {
        name: sampled.to_dataframe().query("is_leaf").groupby("kind")["relative_to_output"].mean()
        for name, sampled in rows.items()
    }
)

# %% [markdown]
# By this measure ResNet-18's late strided shortcuts are the worst layers, and ordinary
# convolutions stand out, because their padding spoils a wide border of a small map. The
# decomposition above says that little of this reaches the output. Both are true; they answer
# different questions. (EQ-T here is relative to the size of the layer's output; `SampledResult`
# has the paper's three normalisations and two relative ones.)
#
# ## Into one model
#
# The icicle of ConvNeXt: `model` is the timm network within the normalisation, `stem` its stride of
# 4, and in every stage the `downsample` is what matters.

# %%
plot_icicle(results["convnext_atto"], titles=["convnext_atto"])

# %% [markdown]
# And for one image, where in it: the layers of ResNet-18 with the largest shares.

# %%
one = images[1:2]
name = "resnet18"
result = LayerwiseEquivarianceError(models[name], output_fn=output_fn(name)).attribute(one, shift)
leading = leading_calls(result, 5)
found = layer_maps(
    models[name], one, list(dict.fromkeys(m for m, _ in leading)), shift, output_fn=output_fn(name)
)
maps = [
    (m.module.removeprefix("model."), m.attribution, m.layout)
    for m in found
    if (m.module, m.call) in leading
]
plot_layer_maps(one[0], maps)

# %% [markdown]
# A share is spread very unevenly. A handful of pixels in the first layers decide, where fine
# structure meets a stride; the deeper maps are coarse, and red and blue compensate. The title of
# each is its sum.
#
# ## Windows, and what cannot be resolved
#
# A Swin transformer rolls its feature map, cuts it into windows and puts the windows into the batch
# axis. The layout `regrouped` says in which order: `n` is the example, `y0 x0` the window, `y1 x1`
# the place in it. For timm's windowed models the rules come with the adapter; for a model of your
# own, `regrouped("(n y0 x0) (y1 x1) c", height=(8, 7), width=(8, 7))` says the same.

# %%
windowed, source = load("swin_tiny_patch4_window7_224")
result = LayerwiseEquivarianceError(windowed, output_fn=None).attribute(images[:1], shift)
table = result.to_dataframe()
leaves = table[table["is_leaf"]]
folded = leaves[(leaves["input_layout"] == "unknown") | (leaves["output_layout"] == "unknown")]
print(
    f"weights: {source}; leaves resolved: {result.resolved_share:.0%}; "
    f"sum of shares / LEE = {table['self_contribution'].sum() / result.total.mean().item():.6f}\n"
    f"folded: {folded['type'].value_counts().to_dict()}"
)
attention = table[table["module"].str.contains(r"layers.0.blocks.[01].attn.(?:qkv|proj)$")]
print(attention[["module", "input_layout", "contribution"]].to_string(index=False))

# %% [markdown]
# What is folded are the softmaxes of attention (and the dropouts after them, which do nothing).
# Their tensors hold a number for every pair of tokens, which is no image; the attention around them
# has its contribution, with them as a part of it, and nothing is lost from the sum.
#
# `captum-lie layers` does all
# of this from a shell, also for models of your own (`FILE.py:function`):
#
# ```console
# captum-lie layers --model resnet18 --model convnext_atto --images photos --out layers
# captum-lie layers --model resnet18 --checkpoint my-weights.pth --images photos --out layers
# ```
#
# ## A checkpoint of your own
#
# `checkpoint=` reads whatever timm reads. Here a model is saved and read back; it must give the
# same scores. The wrong file must not pass in silence.

# %%
small = captum_lie_timm.load("test_resnet", pretrained=False)
torch.save(small.model.state_dict(), "test_resnet.pth")
again = captum_lie_timm.load("test_resnet", checkpoint="test_resnet.pth")
x = F.interpolate(images[:2], small.input_size, mode="bilinear", antialias=True)
try:
    captum_lie_timm.load("resnet18", checkpoint="test_resnet.pth")
except RuntimeError as error:
    message = str(error)
print("same scores:", torch.equal(small(x), again(x)))
print("a checkpoint of another model:", message[:160], "...")

# %% [markdown]
# ## In short
#
# - `captum_lie_timm.load` gives plain-image models with timm's own preprocessing inside, with
#   pretrained, local or random weights. Say which when you show numbers.
# - Layouts are found for nearly all of timm, shown in every row, folded where unknown, and
#   overridden by module name with `layouts=`.
# - The shares sum to LEE for every architecture: the errors of wholly different models can be put
#   side by side.
# - At initialisation the entrance is to blame: strides and patches.
