"""The evaluation of a network: which images it predicts, and what it scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import keras
import numpy as np
import pytest

from bloodauto.clock import SimulatedClock
from bloodauto.config.recipe import Recipe
from bloodauto.errors import TrialRejected
from bloodauto.evaluation.evaluator import Evaluator
from bloodauto.evaluation.fold_data import FoldData
from bloodauto.evaluation.inference import BATCH_SIZE, predict_batches
from bloodauto.evaluation.metrics import compute_metrics
from bloodauto.evaluation.shift_score import score_shift
from bloodauto.models.network import build_network


class TickingClock(SimulatedClock):
    """One second later at every reading."""

    def now(self) -> float:
        self.advance(1.0)
        return super().now()


@pytest.fixture(scope="module")
def network(fold_data: FoldData, recipe_of: Callable[..., Recipe]) -> keras.Model:
    keras.utils.set_random_seed(0)
    return build_network(recipe_of(), num_classes=fold_data.num_classes, image_shape_px=(32, 32), weights_file=None)


def test_an_evaluation_holds_the_scores_of_its_predictions(fold_data: FoldData, network: keras.Model) -> None:
    evaluation = Evaluator(fold_data, TickingClock()).evaluate(network)
    predictions = evaluation.predictions
    np.testing.assert_array_equal(predictions.index, fold_data.validation_index)
    expected = predict_batches(network, fold_data.images, fold_data.validation_index)
    np.testing.assert_array_equal(predictions.clean, expected)
    assert evaluation.clean == compute_metrics(fold_data.validation_labels, predictions.clean)
    clean = predictions.clean[fold_data.subset_rows]
    assert evaluation.shifted == score_shift(fold_data.subset_labels, clean, fold_data.plan, predictions.shifted)
    assert evaluation.score == evaluation.shifted.objective


def test_the_subset_is_predicted_as_in_the_whole_evaluation(fold_data: FoldData, network: keras.Model) -> None:
    every_second = replace(fold_data, subset_shifted_rows=fold_data.subset_shifted_rows[::2])
    evaluator = Evaluator(every_second, TickingClock())
    subset, full = evaluator.evaluate_subset(network), evaluator.evaluate(network)
    rows = every_second.subset_shifted_rows
    np.testing.assert_allclose(subset.predictions.shifted, full.predictions.shifted[rows], atol=1e-6)
    np.testing.assert_array_equal(subset.predictions.shifted_families, full.predictions.shifted_families[rows])
    np.testing.assert_array_equal(full.predictions.shifted_weights, fold_data.plan.weights)
    np.testing.assert_array_equal(subset.predictions.index, fold_data.validation_index[fold_data.subset_rows])
    assert len(full.predictions.shifted_severities) == len(full.predictions.shifted) == len(fold_data.plan)


def test_latency_is_measured_with_the_clock_and_not_for_a_subset(fold_data: FoldData, network: keras.Model) -> None:
    evaluator = Evaluator(fold_data, TickingClock())
    assert evaluator.evaluate(network).latency_ms == pytest.approx(1000 / BATCH_SIZE)
    assert evaluator.evaluate_subset(network).latency_ms is None


def test_target_images_are_predicted_once_at_the_end(fold_data: FoldData, network: keras.Model) -> None:
    with_target = Evaluator(replace(fold_data, target_images=fold_data.images[:5]), TickingClock())
    evaluation = with_target.evaluate(network)
    assert evaluation.predictions.target.shape == (5, fold_data.num_classes)
    assert evaluation.target_estimate is not None
    assert 0.0 <= evaluation.target_estimate <= 1.0
    subset = with_target.evaluate_subset(network)
    assert subset.target_estimate is None
    assert len(subset.predictions.target) == 0
    without = Evaluator(fold_data, TickingClock()).evaluate(network)
    assert without.target_estimate is None
    assert without.predictions.target.shape == (0, fold_data.num_classes)
    assert without.score == evaluation.score


def test_a_network_that_has_diverged_is_rejected(fold_data: FoldData) -> None:
    images = keras.Input((32, 32, 3), dtype="uint8")
    logits = keras.layers.Dense(fold_data.num_classes)(keras.layers.GlobalAveragePooling2D()(images))
    network = keras.Model(images, logits)
    network.set_weights([np.full_like(weights, np.nan) for weights in network.get_weights()])
    with pytest.raises(TrialRejected, match="not finite"):
        Evaluator(fold_data, TickingClock()).evaluate_subset(network)
