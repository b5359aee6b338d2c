"""One cell of a sweep: a model on a set of images under some settings, measured or failed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from captum_lie.results.averages import mean_and_stderr
from captum_lie.results.environment import Environment
from captum_lie.results.record import ModelRecord

#: Columns of a sweep's table in long form.
COLUMNS = (
    "model", "label", "family", "kind", "images", "metric", "group", "value", "stderr", "relative",
    "relative_stderr", "n", "status", "cause",
)  # fmt: skip

Row = dict[str, Any]


@dataclass(frozen=True)
class Facts:
    """What a results file of timm says of a model.

    Attributes:
        img_size: pixels a side, of the longer one.
        param_count: in millions.
        crop_pct: share of the scaled image that it sees.
        interpolation: by which images are scaled.
    """

    img_size: int | None = None
    param_count: float | None = None
    crop_pct: float | None = None
    interpolation: str | None = None


@dataclass(frozen=True, eq=False)
class Cell:
    """One model on one set of images.

    Attributes:
        key: hash of settings, weights and images.
        model: its name; ``label`` is what tables call it.
        family, kind: as its adapter tells them; empty where unknown.
        images: name of the set of images.
        status: ``"ok"`` or ``"failed"``.
        cause: of a failure, on one line; ``traceback`` in full, where there is one.
        records: the model, and its control if one was asked for.
        facts: of the model.
        settings: under which it was measured.
        environment: where.
        seconds: that it took.
        batch_size: that fitted the memory.
    """

    key: str
    model: str
    label: str
    images: str
    family: str = ""
    kind: str = ""
    status: Literal["ok", "failed"] = "ok"
    cause: str = ""
    traceback: str = ""
    records: tuple[ModelRecord, ...] = ()
    facts: Facts = field(default_factory=Facts)
    settings: dict[str, Any] = field(default_factory=dict)
    environment: Environment = field(default_factory=Environment)
    seconds: float = 0.0
    batch_size: int | None = None

    def rows(self) -> list[Row]:
        """In long form, with :data:`COLUMNS`; a failed cell is one row.

        Metrics of the control end in ``_untrained``; ``lee_of_KIND`` is what modules of a kind
        contribute to LEE; ``lee_worst`` is LEE along the worst affine direction.

        Example:
            >>> failed = Cell("0", "resnet18", "resnet18", "test", status="failed", cause="why")
            >>> [(row["metric"], row["status"], row["cause"]) for row in failed.rows()]
            [('', 'failed', 'why')]
        """
        head = {
            "model": self.model,
            "label": self.label,
            "family": self.family,
            "kind": self.kind,
            "images": self.images,
        }
        numbers = [row for record in self.records for row in _numbers(record)]
        tail = {"status": self.status, "cause": self.cause}
        return [
            {**dict.fromkeys(COLUMNS, np.nan), "metric": "", "group": ""} | head | row | tail
            for row in numbers or [{}]
        ]


def _numbers(record: ModelRecord) -> Iterator[Row]:
    suffix = "" if record.trained else "_untrained"
    if record.lee is not None:
        for row in record.lee.to_dataframe().to_dict("records"):
            yield {
                "metric": f"lee{suffix}",
                "group": row["group"],
                "value": row["lee"],
                "stderr": row["stderr"],
                "relative": row["relative_lee"],
                "relative_stderr": row["relative_stderr"],
                "n": row["n"],
            }
        if record.lee.gram is not None:
            worst = float(np.linalg.eigvalsh(record.lee.gram.numpy())[-1])
            yield {"metric": f"lee_worst{suffix}", "value": worst, "n": len(record.lee)}
    if record.correct is not None:
        yield {
            "metric": f"accuracy{suffix}",
            "value": record.accuracy,
            "stderr": record.accuracy_stderr,
            "n": len(record.correct),
        }
    for result in record.metrics or ():
        yield {
            "metric": result.metric,
            "group": result.variant,
            "value": result.value,
            "stderr": result.stderr,
            "n": result.n,
        }
    for layers in record.layers:
        table = layers.to_dataframe()
        for kind in dict.fromkeys(table["kind"]):
            chosen = [i for i, row in enumerate(layers.rows) if row.kind == kind]
            parts = layers.self_contributions[chosen].nansum(0, keepdim=True)
            mean, stderr = (float(x) for x in mean_and_stderr(parts))
            yield {
                "metric": f"lee_of_{kind}",
                "group": layers.group,
                "value": mean,
                "stderr": stderr,
                "n": parts.shape[1],
            }
