from bloodauto.config.objectives import Objectives
from bloodauto.evaluation.fold_data import Evaluation
from bloodauto.evaluation.metrics import Metrics
from bloodauto.training.result import TrialResult


def test_secondary_values_are_scores_and_costs_in_the_order_of_the_objectives() -> None:
    metrics = Metrics(loss=0.3, accuracy=0.9, balanced_accuracy=0.8, macro_f1=0.7)
    evaluation = Evaluation(metrics, shift=0.6, latency_ms=1.5)
    result = TrialResult(True, 0.9, evaluation, history=(), parameters=7, seconds=1.0)
    assert result.secondary_values(Objectives(("shift", "latency", "accuracy"))) == (1.5, 0.9)
    assert result.secondary_values(Objectives(("accuracy", "shift", "parameters"))) == (0.6, 7.0)
