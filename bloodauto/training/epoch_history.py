"""Decisions from the epochs so far: which is the best, whether patience is exhausted, the learning rate after a plateau.

All are functions of the history, so that a resumed training decides as one that was never interrupted.
"""

from __future__ import annotations

from collections.abc import Sequence

from bloodauto.config.recipe import EpochMetric, Schedule, Stage
from bloodauto.run.artifacts import EpochReport

#: Fractions of a stage are sums of steps, which do not reach a whole number exactly.
_SLACK = 1e-6


def score_of(report: EpochReport, metric: EpochMetric) -> float:
    """The value of a metric, with the sign of the loss turned so that larger is better."""
    return -report.loss if metric == "loss" else float(getattr(report, metric))


def is_best(reports: Sequence[EpochReport], metric: EpochMetric) -> bool:
    """Whether no earlier epoch was better than the last one."""
    scores = [score_of(report, metric) for report in reports]
    return scores[-1] >= max(scores)


def stage_metric(stage: Stage) -> EpochMetric:
    """The metric that decides which epoch of a stage is its best."""
    return stage.early_stopping.metric if stage.early_stopping is not None else "objective"


def patience_exhausted(reports: Sequence[EpochReport], stage: Stage) -> bool:
    """Whether early stopping ends the stage with these epochs."""
    if stage.early_stopping is None:
        return False
    scores = [score_of(report, stage.early_stopping.metric) for report in reports]
    return len(scores) - 1 - scores.index(max(scores)) >= stage.early_stopping.patience_epochs


def kept_report(history: Sequence[EpochReport], stages: Sequence[Stage]) -> EpochReport:
    """The epoch whose weights the trial keeps.

    The best by the objective; an epoch of a stage without ``restore_best`` replaces it in any case.
    """
    kept = history[0]
    for report in history[1:]:
        if not stages[report.stage].restore_best or report.objective >= kept.objective:
            kept = report
    return kept


def keeps_last(history: Sequence[EpochReport], stages: Sequence[Stage]) -> bool:
    """Whether the trial's kept weights are those of the last epoch."""
    return kept_report(history, stages) is history[-1]


def plateau_factor(schedule: Schedule, epochs: int, reports: Sequence[EpochReport]) -> float:
    """The factor of a plateau schedule on the learning rate.

    As Keras' ReduceLROnPlateau without a cool-down and without a smallest improvement. Deviation: patience is counted in the
    stage's progress, of which an epoch is ``1 / epochs``. Without a time limit that is the same; under one, as in a refit,
    patience stays the same fraction of the stage.

    Args:
        schedule: A plateau.
        epochs: The epochs of the whole stage.
        reports: The stage's epochs so far.
    """
    assert schedule.metric is not None
    assert schedule.factor is not None
    assert schedule.patience_epochs is not None
    factor, best, best_at = 1.0, -float("inf"), 0.0
    for report in reports:
        score = score_of(report, schedule.metric)
        if score > best:
            best, best_at = score, report.stage_progress
        elif report.stage_progress - best_at + _SLACK >= schedule.patience_epochs / epochs:
            factor, best_at = factor * schedule.factor, report.stage_progress
    return max(factor, schedule.final_factor)
