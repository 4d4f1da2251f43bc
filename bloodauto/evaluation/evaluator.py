"""Evaluation of a network on a fold: predictions for clean, shifted and target images, and their scores."""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np

from bloodauto.clock import Clock
from bloodauto.errors import TrialRejected
from bloodauto.evaluation.fold_data import FoldData
from bloodauto.evaluation.inference import predict_batches
from bloodauto.evaluation.latency import batch_latency_ms
from bloodauto.evaluation.metrics import compute_metrics
from bloodauto.evaluation.shift_score import ShiftScore, score_shift
from bloodauto.run.artifacts import Metrics, ValidationPredictions
from bloodauto.shift.target_estimators import estimate_by_transport
from bloodauto.types import Probabilities, Rows


@dataclass(frozen=True)
class Evaluation:
    """The scores of a network, and the predictions that they come from.

    Attributes:
        clean: Metrics on the validation images.
        shifted: Scores on the shifted validation images.
        latency_ms: Milliseconds per image in batches, on the device of the training; None for a subset.
        target_estimate: Estimated accuracy in the target domain, 0-1; None for a subset or without target images.
        predictions: The class probabilities.
    """

    clean: Metrics
    shifted: ShiftScore
    latency_ms: float | None
    target_estimate: float | None
    predictions: ValidationPredictions

    @property
    def score(self) -> float:
        """The shift score, 0-1."""
        return self.shifted.objective


@dataclass(frozen=True)
class Evaluator:
    """Evaluates networks on one fold.

    Attributes:
        fold_data: The images.
        clock: Measures the latency.

    Example:
        evaluation = Evaluator(fold_data, SYSTEM_CLOCK).evaluate(network)
        print(evaluation.clean.accuracy, evaluation.score, evaluation.latency_ms)
    """

    fold_data: FoldData
    clock: Clock

    def evaluate(self, network: keras.Model) -> Evaluation:
        """Evaluates a network on all validation images, all shifted images and all target images.

        Raises:
            TrialRejected: A predicted probability is not finite.
        """
        data = self.fold_data
        clean = predict_batches(network, data.images, data.validation_index)
        shifted = predict_batches(network, data.shifted_images)
        _check_finite(clean, shifted)
        target, estimate = clean[:0], None
        if len(data.target_images):
            target = predict_batches(network, data.target_images)
            estimate = estimate_by_transport(target, np.bincount(data.train_labels, minlength=data.num_classes))
        score = score_shift(
            data.subset_labels, clean[data.subset_rows], data.plan, shifted, clean_weight=data.clean_weight
        )
        return Evaluation(
            clean=compute_metrics(data.validation_labels, clean),
            shifted=score,
            latency_ms=batch_latency_ms(network, data.shifted_images, clock=self.clock),
            target_estimate=estimate,
            predictions=self._predictions(data.validation_index, clean, np.arange(len(data.plan)), shifted, target),
        )

    def evaluate_subset(self, network: keras.Model) -> Evaluation:
        """Evaluates a network on the fixed part of the images that is evaluated after every epoch.

        Raises:
            TrialRejected: A predicted probability is not finite.
        """
        data = self.fold_data
        index, shifted_rows = data.validation_index[data.subset_rows], data.subset_shifted_rows
        clean = predict_batches(network, data.images, index)
        shifted = predict_batches(network, data.shifted_images, shifted_rows)
        _check_finite(clean, shifted)
        plan = data.plan.select(shifted_rows)
        return Evaluation(
            clean=compute_metrics(data.subset_labels, clean),
            shifted=score_shift(data.subset_labels, clean, plan, shifted, clean_weight=data.clean_weight),
            latency_ms=None,
            target_estimate=None,
            predictions=self._predictions(index, clean, shifted_rows, shifted, clean[:0]),
        )

    def _predictions(
        self,
        index: Rows,
        clean: Probabilities,
        shifted_rows: Rows,
        shifted: Probabilities,
        target: Probabilities,
    ) -> ValidationPredictions:
        data = self.fold_data
        plan = data.plan.select(shifted_rows)
        return ValidationPredictions(
            index=index,
            labels=data.labels[index],
            clean=clean,
            shifted_labels=data.shifted_labels[shifted_rows],
            shifted_groups=plan.group_names,
            shifted_families=plan.family_names,
            shifted_severities=plan.severities,
            shifted_weights=plan.weights,
            shifted=shifted,
            target=target,
        )


def _check_finite(clean: Probabilities, shifted: Probabilities) -> None:
    if not (np.isfinite(clean).all() and np.isfinite(shifted).all()):
        raise TrialRejected("nan", "the network's outputs are not finite; a smaller learning rate may help")
