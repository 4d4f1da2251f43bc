"""How a training ended, by the result that it wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bloodauto.config.objectives import Objectives
from bloodauto.run.artifacts import Metrics, NetworkWeights, TrainingResult
from bloodauto.run.training_directory import TrainingDirectory
from bloodauto.testing.run_factory import make_predictions, make_result
from bloodauto.tuning.executors.ends import completed_end, end_on_disk
from bloodauto.tuning.messages import Completed

PREDICTIONS = make_predictions(np.random.default_rng(0), 4, 0.8)


def write_training(folder: Path, *, finished: bool = True) -> TrainingResult:
    """All files of a training that has ended, or was stopped."""
    training, result = TrainingDirectory(folder), make_result(PREDICTIONS, shift=0.7, epochs=2, finished=finished)
    folder.mkdir(parents=True, exist_ok=True)
    training.recipe.write_text("a recipe")
    training.weights.write(NetworkWeights(weights=()))
    training.predictions.write(PREDICTIONS)
    training.result.write(result)
    return result


def test_secondary_values_are_scores_and_costs_in_the_order_of_the_objectives() -> None:
    metrics = Metrics(loss=0.3, accuracy=0.9, balanced_accuracy=0.8, macro_f1=0.7)
    result = make_result(PREDICTIONS, shift=0.6, epochs=1).replace(metrics=metrics, latency_ms=1.5, parameters=7)
    assert completed_end(result, Objectives(("shift", "latency", "accuracy"))) == Completed(0.6, (1.5, 0.9))
    assert completed_end(result, Objectives(("accuracy", "shift", "parameters"))) == Completed(0.6, (0.6, 7.0))


def test_a_finished_result_is_the_end_of_the_training(tmp_path: Path) -> None:
    result = write_training(tmp_path)
    end = end_on_disk(TrainingDirectory(tmp_path), Objectives(("shift", "latency")))
    assert end == Completed(0.7, (result.latency_ms,), is_timed=False)


@pytest.mark.parametrize("case", ["no result", "stopped", "cut short", "without weights"])
def test_anything_else_is_not(tmp_path: Path, case: str) -> None:
    training = TrainingDirectory(tmp_path)
    write_training(tmp_path, finished=case != "stopped")
    if case == "no result":
        training.result.delete()
    elif case == "cut short":
        training.result.path.write_bytes(training.result.path.read_bytes()[:40])
    elif case == "without weights":
        training.weights.delete()
    assert end_on_disk(training, Objectives()) is None
