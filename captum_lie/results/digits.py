"""What training on rotated digits returns: scores of each run, epoch by epoch."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd

from captum_lie.results.environment import Environment


@dataclass(frozen=True)
class DigitsScore:
    """A model on the test digits after some epochs.

    Attributes:
        epoch: epochs of training so far; 0 before it.
        loss: mean of the training loss in that epoch, the penalty included; None before it.
        learning_rate: of the next epoch.
        error: share of wrong answers on test digits that are turned by up to the test angle.
        errors: the same with all test digits turned by each of the study's angles, either way.
        changes: mean square of how probabilities change under these turns.
        lee, lee_stderr: rotation LEE on the test digits of ``error``, in probability² per radian²,
            and its standard error.
        relative_lee, relative_stderr: LEE over its control.
        upright_lee: LEE on the test digits as they are, not turned.
    """

    epoch: int
    loss: float | None
    learning_rate: float
    error: float
    errors: tuple[float, ...]
    changes: tuple[float, ...]
    lee: float
    lee_stderr: float
    relative_lee: float
    relative_stderr: float
    upright_lee: float


@dataclass(frozen=True)
class DigitsRun:
    """One training.

    Attributes:
        penalty: strength of the rotation penalty; 0 for none.
        seed: of weights, order and rotations.
        scores: before training and after each epoch.
    """

    penalty: float
    seed: int
    scores: tuple[DigitsScore, ...]


@dataclass(frozen=True)
class DigitsStudy:
    """Trainings of one model on digits, with the penalties and seeds that were asked for.

    Attributes:
        model, data: as they were named.
        angles: degrees, of ``errors`` and ``changes``.
        runs: each penalty and seed.
        settings: of the training.
        environment: where the last run was made.

    Example:
        >>> score = DigitsScore(0, None, 1e-3, 0.9, (0.9,), (0.1,), 0.2, 0.01, 1.0, 0.1, 0.3)
        >>> study = DigitsStudy("vit", "builtin", (30.0,), (DigitsRun(0.0, 0, (score,)),))
        >>> study.to_dataframe()[["penalty", "seed", "epoch", "error_at_30"]].to_dict("records")
        [{'penalty': 0.0, 'seed': 0, 'epoch': 0, 'error_at_30': 0.9}]
    """

    model: str
    data: str
    angles: tuple[float, ...]
    runs: tuple[DigitsRun, ...]
    settings: dict[str, float | int | str | None] = field(default_factory=dict)
    environment: Environment = field(default_factory=Environment)

    def to_dataframe(self) -> pd.DataFrame:
        """A row per run and epoch; ``error_at_30``, ``change_at_30`` and so on by angle."""
        return pd.DataFrame([self._row(run, score) for run in self.runs for score in run.scores])

    def _row(self, run: DigitsRun, score: DigitsScore) -> dict[str, float | int | None]:
        row: dict[str, float | int | None] = {"penalty": run.penalty, "seed": run.seed}
        row |= {k: v for k, v in vars(score).items() if k not in ("errors", "changes")}
        for name, values in (("error", score.errors), ("change", score.changes)):
            for angle, value in zip(self.angles, values, strict=True):
                row[f"{name}_at_{angle:g}"] = value
        return row

    def last(self) -> pd.DataFrame:
        """The last row of each run."""
        return self.to_dataframe().groupby(["penalty", "seed"], sort=False).tail(1)
