"""Relative LEE of the three trained ImageNet models beside their untrained twins, as Markdown.

    python -m tests.benchmarks.relative_lee --out relative-lee

measures all ten groups on squares of the photographs that scikit-image and scikit-learn carry
(minutes), or formats what an earlier run of it wrote: ``--csv relative-lee/lee.csv``. The command
line gives the same numbers, see :data:`COMMANDS`.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import pandas as pd
from PIL import Image

from captum_lie.cli.measure import measure_command
from captum_lie.examples.photographs import find_photographs, write_photographs
from captum_lie.groups import get_groups
from captum_lie.images import ImageFiles
from captum_lie.show.bars import controls_of
from captum_lie.show.pages import png
from captum_lie.show.report import pictures_of
from captum_lie.studies import Options, measure, prepare
from captum_lie.studies.specs import ModelSpec, candidates_from
from captum_lie_timm.demo import DRAWN
from captum_lie_timm.imagenet import PREFIX, PUBLISHED, WEIGHTS

COMMANDS = """\
python -m captum_lie.examples.photographs photographs
captum-lie measure --model lite0=imagenet:efficientnet_lite0 \\
  --model lite1=imagenet:efficientnet_lite1 --model lite2=imagenet:efficientnet_lite2 \\
  --images photographs --out relative-lee"""


def measured(out: Path) -> pd.DataFrame:
    """What :data:`COMMANDS` write to ``lee.csv``."""
    write_photographs(out / "photographs")
    models = [f"{name.removeprefix('efficientnet_')}={PREFIX}{name}" for name in WEIGHTS]
    measure_command(models, images=str(out / "photographs"), out=out, pictures=0)
    return pd.read_csv(out / "lee.csv")


def markdown(table: pd.DataFrame) -> str:
    """A row per group: relative LEE ± standard error of each model and of its twin.

    An asterisk marks a trained model that is not below its twin by two standard errors of the
    difference.
    """
    by = table.set_index(["model", "group"])
    controls = controls_of(table)
    models = list(controls)
    lines = [
        "| group | " + " | ".join(f"{m} | {m} untrained" for m in models) + " |",
        "| --- |" + " ---: | ---: |" * len(models),
    ]
    for group in dict.fromkeys(table["group"]):
        cells = []
        for model in models:
            trained, twin = by.loc[(model, group)], by.loc[(controls[model], group)]
            gap = twin["relative_lee"] - trained["relative_lee"]
            error = (trained["relative_stderr"] ** 2 + twin["relative_stderr"] ** 2) ** 0.5
            mark = "" if gap > 2 * error else "*"
            cells += [_cell(trained) + mark, _cell(twin)]
        lines.append(f"| {str(group).replace('_', ' ')} | " + " | ".join(cells) + " |")
    means = [
        f"{table.loc[table['model'] == name, 'relative_lee'].mean():.2f}"
        for model in models
        for name in (model, controls[model])
    ]
    lines.append("| mean of the ten | " + " | ".join(means) + " |")
    published = [f"{weights.published_top1:.1%} | " for weights in WEIGHTS.values()]
    lines.append("| published top-1 | " + " | ".join(published) + "|")
    return "\n".join(lines)


def picture(file: Path) -> None:
    """Maps of the three trained models over a cat, each as it sees her: README's first picture."""
    models = candidates_from(
        [ModelSpec(f"lite{i}", PREFIX + name) for i, name in enumerate(WEIGHTS)]
    )
    batches, _ = prepare(models, ImageFiles([find_photographs()["chelsea"]]))
    options = Options(pictured=1, relative=False)
    measured_maps = measure(models, batches, get_groups(DRAWN), options)
    (figure,) = pictures_of(measured_maps.models)
    drawn = Image.open(io.BytesIO(png(figure))).convert("RGB")
    drawn.quantize(256).save(file, optimize=True)  # a third of the bytes, no visible difference


def _cell(row: pd.Series) -> str:
    return f"{row['relative_lee']:.2f} ± {row['relative_stderr']:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("relative-lee"))
    parser.add_argument("--csv", type=Path, help="format this file instead of measuring")
    parser.add_argument("--picture", type=Path, help="draw README's first picture, nothing else")
    args = parser.parse_args()
    if args.picture:
        picture(args.picture)
        return
    table = pd.read_csv(args.csv) if args.csv else measured(args.out)
    print(f"```console\n{COMMANDS}\n```\n\n{markdown(table)}\n\n{PUBLISHED}.")


if __name__ == "__main__":
    main()
