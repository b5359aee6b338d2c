"""A training on digits beside what others published on rotated MNIST, after the paper's Table 1."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from captum_lie._compat import tomllib
from captum_lie.results import DigitsStudy
from captum_lie.show.digits_table import digits_table


def beside_published(study: DigitsStudy) -> pd.DataFrame:
    """Test errors in percent: published ones of rotated MNIST, then those of a study.

    Columns are ``name``, ``error``, ``sd`` (over seeds; NaN where there is one) and ``source``.
    The study's are those of its last epoch, a row for each penalty.

    Example:
        >>> from captum_lie.results import DigitsRun, DigitsScore
        >>> score = DigitsScore(1, 0.5, 1e-3, 0.05, (0.25,), (0.1,), 0.2, 0.01, 1.0, 0.1, 0.3)
        >>> study = DigitsStudy("vit", "builtin", (30.0,), (DigitsRun(0.0, 0, (score,)),))
        >>> beside_published(study)[["name", "error"]].iloc[[1, -1]].values.tolist()
        [['G-CNN (P4CNN)', 2.28], ['vit', 5.0]]
    """
    text = files("captum_lie.show").joinpath("published.toml").read_text(encoding="utf-8")
    rows = [{"sd": float("nan"), **result} for result in tomllib.loads(text)["result"]]
    own = digits_table(study)
    for penalty, error, sd in zip(own["penalty"], own["error"], own["error_sd"], strict=True):
        name = f"{study.model}, penalty {penalty:g}" if penalty else study.model
        rows.append({"name": name, "error": 100 * error, "sd": 100 * sd, "source": "this training"})
    return pd.DataFrame(rows)[["name", "error", "sd", "source"]]


def differences(study: DigitsStudy) -> str:
    """In what a training differs from that of the published numbers, in one sentence."""
    get = study.settings.get
    learnt, tested = get("train_digits", "?"), get("test_digits", "?")
    if get("rotated_already") and (learnt, tested) == (12000, 50000):
        data = "the same digits"
    else:
        name = Path(study.data).name
        data = f"{name} ({learnt} digits to learn, {tested} to test with), not rotated MNIST"
    start = "pretrained weights" if get("pretrained") else "weights from scratch"
    return f"This training: {data}; {start}; {get('epochs', '?')} epochs."


def plot_published(study: DigitsStudy) -> Figure:
    """:func:`beside_published` as bars, and in words what differs."""
    table = beside_published(study)
    own = table["source"] == "this training"
    figure = Figure(figsize=(7, 1.4 + 0.32 * len(table)), layout="constrained")
    axes = figure.subplots()
    place = np.arange(len(table))
    axes.barh(
        place, table["error"], xerr=table["sd"].fillna(0), height=0.6,
        color=np.where(own, "tab:blue", "0.7"), error_kw={"elinewidth": 0.8},
    )  # fmt: skip
    for y, (error, sd, source) in enumerate(
        zip(table["error"], table["sd"], table["source"], strict=True)
    ):
        reach, spread = (0.0, "") if np.isnan(sd) else (sd, f" ± {sd:.2g}")
        axes.annotate(
            f"{error:.3g}{spread}  ({source})", (error + reach, y), xytext=(4, 0),
            textcoords="offset points", va="center", fontsize=8, color="0.3",
        )  # fmt: skip
    axes.set_yticks(place, table["name"])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.75 * table["error"].max())
    axes.set_xlabel("test error in percent")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title("Digits turned by any angle", loc="left", fontsize=10)
    figure.supxlabel(differences(study), fontsize=8, color="0.3")
    return figure
