"""What a result gives to a search with several objectives."""

from __future__ import annotations

import numpy as np

from bloodauto.config.objectives import Objectives
from bloodauto.evaluation.evaluator import Evaluation
from bloodauto.evaluation.shift_score import GroupScore, ShiftScore
from bloodauto.run.artifacts import Metrics, ValidationPredictions
from bloodauto.training.result import TrialResult


def _evaluation(metrics: Metrics, *, shift: float, latency_ms: float) -> Evaluation:
    """An evaluation without predictions."""
    group = GroupScore("stain", accuracy=0.5, balanced_accuracy=0.5, num_shifted_images=4, weight=1.0)
    shifted = ShiftScore(
        clean_accuracy=metrics.accuracy,
        clean_balanced_accuracy=metrics.balanced_accuracy,
        groups=(group,),
        families=(),
        mean_balanced_accuracy=0.5,
        worst_group="stain",
        objective=shift,
    )
    rows, names, numbers = np.zeros(0, np.int64), np.zeros(0, np.str_), np.zeros((0, 2), np.float32)
    predictions = ValidationPredictions(
        index=rows,
        labels=rows,
        clean=numbers,
        shifted_labels=rows,
        shifted_groups=names,
        shifted_families=names,
        shifted_severities=rows,
        shifted_weights=np.zeros(0),
        shifted=numbers,
        target=numbers,
    )
    return Evaluation(metrics, shifted, latency_ms, None, predictions)


def test_secondary_values_are_scores_and_costs_in_the_order_of_the_objectives() -> None:
    metrics = Metrics(loss=0.3, accuracy=0.9, balanced_accuracy=0.8, macro_f1=0.7)
    evaluation = _evaluation(metrics, shift=0.6, latency_ms=1.5)
    result = TrialResult(True, 0.9, evaluation, history=(), parameters=7, seconds=1.0)
    assert result.secondary_values(Objectives(("shift", "latency", "accuracy"))) == (1.5, 0.9)
    assert result.secondary_values(Objectives(("accuracy", "shift", "parameters"))) == (0.6, 7.0)
