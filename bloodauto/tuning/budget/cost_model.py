"""Predicts the seconds of a training on one worker, from those that were measured."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from bloodauto.config.recipe import Backbone, LastBlocks, LastLayers, Recipe, Stage
from bloodauto.models.backbones import num_blocks, num_layers, num_parameters
from bloodauto.run.study_attributes import Timing
from bloodauto.tuning.constants import BUDGET_CONSTANTS, BudgetConstants

#: What is measured together: the architecture of the backbone, and the image side in px.
CostKey = tuple[Backbone, int]
_TINY_SECONDS = 1e-9


def cost_key(recipe: Recipe) -> CostKey:
    """What the seconds of a recipe's training depend on: its architecture and its image size.

    Args:
        recipe: The recipe.
    """
    architecture = recipe.backbone.model_copy(update={"weights": "none", "batch_norm": "train"})
    return architecture, recipe.input.size_px


def step_cost_fraction(backbone: Backbone, stage: Stage, constants: BudgetConstants = BUDGET_CONSTANTS) -> float:
    """The cost of a training step in a stage over one with the whole network unfrozen, 0-1.

    Args:
        backbone: The network.
        stage: The stage, of which only the unfrozen depth counts.
        constants: ``forward_fraction`` is used.
    """
    if stage.unfreeze == "all":
        return 1.0
    if stage.unfreeze == "none":
        return constants.forward_fraction
    if isinstance(stage.unfreeze, LastBlocks):
        depth = min(stage.unfreeze.blocks / num_blocks(backbone), 1.0)
    else:
        assert isinstance(stage.unfreeze, LastLayers)
        depth = min(stage.unfreeze.layers / num_layers(backbone), 1.0)
    return constants.forward_fraction + (1 - constants.forward_fraction) * depth


def estimate_seconds(
    measured: Mapping[CostKey, float], key: CostKey, constants: BudgetConstants = BUDGET_CONSTANTS
) -> float:
    """Estimates the seconds of a network that nobody has timed from those of others, at any image size.

    The logarithm of the seconds per pixel is taken to be linear in the logarithms of parameters and layers; the estimate is
    a Bayesian linear regression with the prior in ``constants``. The more networks were timed, and the nearer they are, the
    less the estimate exceeds the likeliest value.

    Args:
        measured: Seconds, above 0, by what was timed; at least one entry.
        key: What is estimated.
        constants: Prior, noise, and how far the estimate exceeds the likeliest value.

    Returns:
        Seconds, above 0.
    """
    rows = np.stack([_features(timed) for timed in measured])
    log_seconds = np.log([seconds / size_px**2 for (_, size_px), seconds in measured.items()])
    means = np.array([0.0, constants.parameter_exponent, constants.layer_exponent])
    deviations = np.array(
        [constants.machine_deviation, constants.parameter_exponent_deviation, constants.layer_exponent_deviation]
    )
    precision = np.diag(deviations**-2.0) + rows.T @ rows / constants.cost_noise**2
    covariance = np.linalg.inv(precision)
    weights = means + covariance @ rows.T @ (log_seconds - rows @ means) / constants.cost_noise**2
    features = _features(key)
    deviation = math.sqrt(float(features @ covariance @ features) + constants.cost_noise**2)
    return float(key[1] ** 2 * np.exp(features @ weights + constants.conservative_deviations * deviation))


def _features(key: CostKey) -> NDArray[np.float64]:
    backbone, _ = key
    return np.array([1.0, math.log(num_parameters(backbone)), math.log(num_layers(backbone))])


class CostModel:
    """Predicts seconds on one worker; observes every epoch, every start and every end.

    Args:
        constants: Windows, margins and defaults.
    """

    def __init__(self, constants: BudgetConstants = BUDGET_CONSTANTS) -> None:
        self._constants = constants

        def window(length: int) -> dict[CostKey, deque[float]]:
            return defaultdict(lambda: deque(maxlen=length))

        self._full_epochs = window(constants.epoch_window)
        self._first_epochs = window(constants.epoch_window)
        self._evaluations = window(constants.epoch_window)
        self._finishes = window(constants.start_window)
        self._cold_starts: deque[float] = deque(maxlen=constants.start_window)
        self._warm_starts: deque[float] = deque(maxlen=constants.start_window)

    @classmethod
    def from_timings(
        cls, timings: Iterable[tuple[Recipe, Timing]], constants: BudgetConstants = BUDGET_CONSTANTS
    ) -> Self:
        """The cost model of a search that goes on after others.

        Args:
            timings: What its earlier trainings took, in their order.
            constants: As for the class.
        """
        model = cls(constants)
        for recipe, timing in timings:
            model.restore(recipe, timing)
        return model

    # -- observations --------------------------------------------------------------------------------------------------

    def observe_epoch(
        self, recipe: Recipe, stage: int, seconds: float, evaluation_seconds: float, *, first: bool = False
    ) -> None:
        """Observes an epoch.

        Args:
            recipe: What is trained.
            stage: Index of the epoch's stage.
            seconds: Wall seconds of the epoch, evaluation included.
            evaluation_seconds: How many of them were evaluation.
            first: Whether it is the first of its training, which is slower: graphs are traced and caches are empty.
        """
        fraction = step_cost_fraction(recipe.backbone, recipe.stages[stage], self._constants)
        epochs = self._first_epochs if first else self._full_epochs
        epochs[cost_key(recipe)].append((seconds - evaluation_seconds) / fraction)
        self._evaluations[cost_key(recipe)].append(evaluation_seconds)

    def observe_start(self, seconds: float, *, cold: bool) -> None:
        """Observes a start.

        Args:
            seconds: Wall seconds from the assignment to the first epoch.
            cold: Whether the worker's process had to start, too.
        """
        (self._cold_starts if cold else self._warm_starts).append(seconds)

    def observe_finish(self, recipe: Recipe, seconds: float) -> None:
        """Observes an end.

        Args:
            recipe: What was trained.
            seconds: Wall seconds from the last epoch to the end.
        """
        self._finishes[cost_key(recipe)].append(seconds)

    def timing(self, recipe: Recipe, *, start_seconds: float, cold: bool, finish_seconds: float | None) -> Timing:
        """What is known of a training, to be kept in the study.

        Args:
            recipe: What was trained; at least one of its epochs was observed.
            start_seconds: Wall seconds from its assignment to its first epoch.
            cold: Whether the worker's process had to start, too.
            finish_seconds: Wall seconds from its last epoch to its end; None when it did not complete.
        """
        return Timing(
            start_seconds=start_seconds,
            cold=cold,
            full_epoch_seconds=self._training_medians()[cost_key(recipe)],
            evaluation_seconds=statistics.median(self._evaluations[cost_key(recipe)]),
            finish_seconds=finish_seconds,
        )

    def restore(self, recipe: Recipe, timing: Timing) -> None:
        """Observes a training of an earlier session.

        Args:
            recipe: What was trained.
            timing: What it took.
        """
        self.observe_start(timing.start_seconds, cold=timing.cold)
        self._full_epochs[cost_key(recipe)].append(timing.full_epoch_seconds)
        self._evaluations[cost_key(recipe)].append(timing.evaluation_seconds)
        if timing.finish_seconds is not None:
            self.observe_finish(recipe, timing.finish_seconds)

    # -- predictions ---------------------------------------------------------------------------------------------------

    def has_timed(self, recipe: Recipe) -> bool:
        """Whether an epoch of the recipe's architecture at its image size was observed.

        Args:
            recipe: The recipe.
        """
        return cost_key(recipe) in self._evaluations

    def start_seconds(self, *, cold: bool = False) -> float:
        """Predicted seconds from an assignment to the first epoch: the longest of the last ones.

        Args:
            cold: Whether the worker's process has to start, too.
        """
        first, second = (self._cold_starts, self._warm_starts) if cold else (self._warm_starts, self._cold_starts)
        observed = first if first else second
        return max(observed) if observed else self._constants.default_start_seconds

    def epoch_seconds(self, recipe: Recipe, stage: int, *, first: bool = False) -> float | None:
        """Predicted seconds of one epoch, evaluation included; None before any epoch was observed.

        Args:
            recipe: What is trained.
            stage: Index of the epoch's stage.
            first: Whether it is the first of its training.
        """
        training = self._median_or_estimate(self._training_medians(), cost_key(recipe))
        if training is None:
            return None
        if first:
            training *= self._first_epoch_ratio
        fraction = step_cost_fraction(recipe.backbone, recipe.stages[stage], self._constants)
        return training * fraction + self.evaluation_seconds(recipe)

    def evaluation_seconds(self, recipe: Recipe) -> float:
        """Predicted seconds of the evaluation after an epoch; 0 before any was observed.

        Args:
            recipe: What is trained.
        """
        medians = {key: statistics.median(seconds) for key, seconds in self._evaluations.items()}
        seconds = self._median_or_estimate(medians, cost_key(recipe))
        return 0.0 if seconds is None else seconds

    def finish_seconds(self, recipe: Recipe) -> float:
        """Predicted seconds from the last epoch to the end: the final evaluation on all validation images.

        Args:
            recipe: What is trained.
        """
        if cost_key(recipe) in self._finishes:
            return max(self._finishes[cost_key(recipe)])
        evaluation, constants = self.evaluation_seconds(recipe), self._constants
        if evaluation <= 0:
            return constants.default_finish_seconds
        return constants.finish_over_evaluation * evaluation + constants.finish_extra_seconds

    def remaining_seconds(self, recipe: Recipe, epochs_done: int) -> float | None:
        """Predicted seconds of the remaining epochs; None before any epoch was observed.

        Args:
            recipe: What is trained.
            epochs_done: How many epochs it has.
        """
        total, begins = 0.0, 0
        for index, stage in enumerate(recipe.stages):
            epochs = stage.epochs - min(max(epochs_done - begins, 0), stage.epochs)
            begins += stage.epochs
            seconds = self.epoch_seconds(recipe, index)
            if seconds is None:
                return None
            total += epochs * seconds
        first, later = self.epoch_seconds(recipe, 0, first=True), self.epoch_seconds(recipe, 0)
        if epochs_done == 0 and first is not None and later is not None:
            total += first - later
        return total

    def trial_seconds(self, recipe: Recipe, *, cold: bool = False, epochs_done: int = 0) -> float | None:
        """Predicted seconds from an assignment to the end; None before any epoch was observed.

        Args:
            recipe: What is trained.
            cold: Whether the worker's process has to start, too.
            epochs_done: How many epochs it has from an earlier session.
        """
        training = self.remaining_seconds(recipe, epochs_done)
        if training is None:
            return None
        return self.start_seconds(cold=cold) + training + self.finish_seconds(recipe)

    def overhead_seconds(self, recipe: Recipe, *, cold: bool) -> float:
        """Predicted seconds that a training with a time limit takes besides: start, last batch, evaluations, with a margin.

        Args:
            recipe: What is trained.
            cold: Whether the worker's process has to start, too.
        """
        epoch, constants = self.epoch_seconds(recipe, 0), self._constants
        return (
            self.start_seconds(cold=cold)
            + constants.evaluation_margin * self.evaluation_seconds(recipe)
            + constants.batch_fraction * (0.0 if epoch is None else epoch)
            + self.finish_seconds(recipe)
        )

    def finalization_slot_seconds(self, recipes: Sequence[Recipe], workers: int) -> float:
        """Predicted seconds x slots after the last training: the end of each worker, then the finalization in one slot.

        Both have a part that is the same for every network, and a part in proportion to a cold start, which is as slow on a
        crowded machine. The predictions of the members for the held-out test set, with its shifted images and simulated sites,
        are added.

        Args:
            recipes: Recipes of the likely ensemble members, in equal numbers; may be empty.
            workers: Worker slots.
        """
        constants, start = self._constants, self.start_seconds(cold=True)
        evaluation = statistics.fmean(self.finish_seconds(recipe) for recipe in recipes) if recipes else 0.0
        predictions = constants.exported_members * constants.export_prediction_margin * evaluation
        shutdown = constants.worker_shutdown_seconds + constants.worker_shutdown_over_start * start
        export = constants.export_seconds + constants.export_over_start * start + predictions
        return constants.finalization_margin * (workers * shutdown + export)

    @property
    def _first_epoch_ratio(self) -> float:
        """Seconds of the first epoch of a training over those of its others; 1 or more."""
        both = self._first_epochs.keys() & self._full_epochs.keys()
        ratios = [
            statistics.median(self._first_epochs[key]) / max(statistics.median(self._full_epochs[key]), _TINY_SECONDS)
            for key in both
        ]
        return max(statistics.median(ratios), 1.0) if ratios else 1.0

    def _training_medians(self) -> dict[CostKey, float]:
        """Seconds of the training part of an epoch that is not the first, by all that was observed."""
        ratio = self._first_epoch_ratio
        from_first = {key: statistics.median(seconds) / ratio for key, seconds in self._first_epochs.items()}
        return from_first | {key: statistics.median(seconds) for key, seconds in self._full_epochs.items()}

    def _median_or_estimate(self, medians: dict[CostKey, float], key: CostKey) -> float | None:
        if key in medians:
            return medians[key]
        measured = {timed: seconds for timed, seconds in medians.items() if seconds > 0}
        return estimate_seconds(measured, key, self._constants) if measured else None
