"""Which trials refits may repeat, those included that have not ended yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bloodauto.config.recipe import Recipe
from bloodauto.run.artifacts import EpochReport
from bloodauto.tuning.refits import CompletedTrial
from bloodauto.tuning.study import StudyRecord


@dataclass(frozen=True)
class UnfinishedTrial:
    """A trial in progress and its last epoch."""

    number: int
    recipe: Recipe
    last: EpochReport


def refit_candidates(record: StudyRecord, in_progress: Sequence[UnfinishedTrial]) -> list[CompletedTrial]:
    """What has finished, and what is on its way, with the objective it will have if it stays as far before or behind.

    That is measured against everything that finished, at the same epoch.

    Args:
        record: in which at least one trial has finished.
    """
    completed = record.refit_eligible_trials()
    curves = [record.curve(trial.number) for trial in completed]
    expected = []
    for one in in_progress:
        epoch, objective = one.last.epoch, one.last.objective
        rival = max(curve.get(epoch, trial.objective) for curve, trial in zip(curves, completed, strict=True))
        at_end = max(trial.objective for trial in completed) + objective - rival
        expected.append(CompletedTrial(one.number, one.recipe, min(at_end, 1.0)))
    return expected + completed
