"""Which trials refits may repeat, those included that have not ended yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bloodauto.config.recipe import Recipe
from bloodauto.training.checkpoint import EpochReport
from bloodauto.tuning.refits import Finished
from bloodauto.tuning.study import StudyRecord


@dataclass(frozen=True)
class OnItsWay:
    """A trial in progress and its last epoch."""

    number: int
    recipe: Recipe
    last: EpochReport


def contenders(record: StudyRecord, in_progress: Sequence[OnItsWay]) -> list[Finished]:
    """What has finished, and what is on its way, with the objective it will have if it stays as far before or behind.

    That is measured against everything that finished, at the same epoch.

    Args:
        record: in which at least one trial has finished.
    """
    finished = record.worth_refitting()
    curves = [record.curve(trial.number) for trial in finished]
    expected = []
    for one in in_progress:
        epoch, objective = one.last.epoch, one.last.objective
        rival = max(curve.get(epoch, trial.objective) for curve, trial in zip(curves, finished, strict=True))
        at_end = max(trial.objective for trial in finished) + objective - rival
        expected.append(Finished(one.number, one.recipe, min(at_end, 1.0)))
    return expected + finished
