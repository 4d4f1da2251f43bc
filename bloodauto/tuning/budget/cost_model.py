"""Predicts the seconds of a training on one worker, from those that were measured."""

from __future__ import annotations

import statistics
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from bloodauto.config.recipe import Recipe
from bloodauto.run.study_attributes import Timing
from bloodauto.tuning.budget.cost_estimate import CostKey, cost_key, estimate_seconds, step_cost_fraction
from bloodauto.tuning.budget.robust_costs import present_seconds, recent_quantile, weighted_quantile
from bloodauto.tuning.constants import BUDGET_CONSTANTS, BudgetConstants

#: So much of a first epoch counts as training, however long its graph took to trace.
_MIN_TRAINING_PART = 0.2
_MIN_STEP_SECONDS = 0.1


@dataclass(frozen=True)
class _ObservedEpoch:
    """The training part of an epoch: its seconds, and how much of a full epoch with everything unfrozen it was."""

    key: CostKey
    seconds: float
    work: float
    first: bool


class CostModel:
    """Predicts seconds on one worker; observes every epoch, every start and every end.

    Seconds of epochs are predicted for the machine as it is now (``present_seconds``): a neighbour that slows it down for some
    minutes changes the predictions for these minutes. What the first epoch of a training takes besides, because graphs are
    traced and caches are empty, is kept apart.

    Args:
        constants: Windows, margins and defaults.
    """

    def __init__(self, constants: BudgetConstants = BUDGET_CONSTANTS) -> None:
        self._constants = constants

        def window(length: int) -> dict[CostKey, deque[float]]:
            return defaultdict(lambda: deque(maxlen=length))

        self._epochs: deque[_ObservedEpoch] = deque(maxlen=constants.epoch_window)
        self._evaluations: deque[tuple[CostKey, float]] = deque(maxlen=constants.epoch_window)
        self._measured: dict[CostKey, float] = {}
        #: The newest predictions; they outlive the observations that they come from.
        self._epoch_seconds: dict[CostKey, float] = {}
        self._evaluation_seconds: dict[CostKey, float] = {}
        self._first_epoch_extra = 0.0
        self._is_current = True
        self._finishes = window(constants.start_window)
        self._cold_starts: deque[float] = deque(maxlen=constants.start_window)
        self._warm_starts: deque[float] = deque(maxlen=constants.start_window)
        #: What ``_recent`` gives for each of the windows until something is added to one of them.
        self._quantiles: dict[int, float] = {}

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
        self,
        recipe: Recipe,
        stage: int,
        seconds: float,
        evaluation_seconds: float,
        *,
        first: bool = False,
        epoch_fraction: float = 1.0,
        is_resumed: bool = False,
    ) -> None:
        """Observes an epoch.

        Args:
            recipe: What is trained.
            stage: Index of the epoch's stage.
            seconds: Wall seconds of the epoch, evaluation included.
            evaluation_seconds: How many of them were evaluation.
            first: Whether it is the first of its training, which is slower: graphs are traced and caches are empty.
            epoch_fraction: How much of a whole epoch's steps it did, above 0 and up to 1; time may have ended it.
            is_resumed: Whether an earlier session did a part of it. The rest may be a few steps after seconds of tracing, so it
                counts only where the network was never timed.
        """
        if is_resumed and self.has_timed(recipe):
            return
        key = cost_key(recipe)
        work = epoch_fraction * step_cost_fraction(recipe.backbone, recipe.stages[stage], self._constants)
        self._epochs.append(_ObservedEpoch(key, max(seconds - evaluation_seconds, 0.0), work, first))
        self._evaluations.append((key, evaluation_seconds))
        self._is_current = False

    def observe_steps(self, recipe: Recipe, epoch_seconds: float) -> None:
        """Takes what some measured steps of a network say of an epoch; epochs that are observed later count instead.

        Args:
            recipe: A recipe with the network.
            epoch_seconds: Seconds of the steps of a full epoch with everything unfrozen, evaluation excluded.
        """
        self._measured[cost_key(recipe)] = epoch_seconds
        self._is_current = False

    def observe_start(self, seconds: float, *, cold: bool) -> None:
        """Observes a start.

        Args:
            seconds: Wall seconds from the assignment to the first epoch.
            cold: Whether the worker's process had to start, too.
        """
        (self._cold_starts if cold else self._warm_starts).append(seconds)
        self._quantiles.clear()

    def observe_finish(self, recipe: Recipe, seconds: float) -> None:
        """Observes an end.

        Args:
            recipe: What was trained.
            seconds: Wall seconds from the last epoch to the end.
        """
        self._finishes[cost_key(recipe)].append(seconds)
        self._quantiles.clear()

    def timing(self, recipe: Recipe, *, start_seconds: float, cold: bool, finish_seconds: float | None) -> Timing:
        """What is known of a training, to be kept in the study.

        Args:
            recipe: What was trained; at least one of its epochs was observed.
            start_seconds: Wall seconds from its assignment to its first epoch.
            cold: Whether the worker's process had to start, too.
            finish_seconds: Wall seconds from its last epoch to its end; None when it did not complete.
        """
        self._update()
        return Timing(
            start_seconds=start_seconds,
            cold=cold,
            full_epoch_seconds=self._epoch_seconds[cost_key(recipe)],
            evaluation_seconds=self._evaluation_seconds[cost_key(recipe)],
            finish_seconds=finish_seconds,
        )

    def restore(self, recipe: Recipe, timing: Timing) -> None:
        """Observes a training of an earlier session.

        Args:
            recipe: What was trained.
            timing: What it took.
        """
        self.observe_start(timing.start_seconds, cold=timing.cold)
        self._epochs.append(_ObservedEpoch(cost_key(recipe), timing.full_epoch_seconds, 1.0, first=False))
        self._evaluations.append((cost_key(recipe), timing.evaluation_seconds))
        self._is_current = False
        if timing.finish_seconds is not None:
            self.observe_finish(recipe, timing.finish_seconds)

    # -- predictions ---------------------------------------------------------------------------------------------------

    def has_timed(self, recipe: Recipe) -> bool:
        """Whether an epoch of the recipe's architecture at its image size was observed.

        Args:
            recipe: The recipe.
        """
        self._update()
        return cost_key(recipe) in self._evaluation_seconds

    def start_seconds(self, *, cold: bool = False) -> float:
        """Predicted seconds from an assignment to the first epoch: somewhat more than the last ones took.

        Args:
            cold: Whether the worker's process has to start, too.
        """
        if cold:
            observed = self._cold_starts if self._cold_starts else self._warm_starts
            return self._recent(observed) if observed else self._constants.default_start_seconds
        if self._warm_starts:
            return self._recent(self._warm_starts)
        return min(self._constants.default_warm_start_seconds, self.start_seconds(cold=True))

    def first_epoch_extra_seconds(self) -> float:
        """Predicted seconds that the first epoch of a training takes besides its steps."""
        self._update()
        return self._first_epoch_extra

    def epoch_seconds(self, recipe: Recipe, stage: int, *, first: bool = False) -> float | None:
        """Predicted seconds of one epoch, evaluation included; None before any epoch was observed or measured.

        Args:
            recipe: What is trained.
            stage: Index of the epoch's stage.
            first: Whether it is the first of its training.
        """
        self._update()
        training = self._known_or_estimated(self._epoch_seconds, cost_key(recipe))
        if training is None:
            return None
        fraction = step_cost_fraction(recipe.backbone, recipe.stages[stage], self._constants)
        extra = self._first_epoch_extra if first else 0.0
        return training * fraction + extra + self.evaluation_seconds(recipe)

    def steps_seconds(self, recipe: Recipe) -> float:
        """Seconds of the steps of a full epoch with everything unfrozen.

        Args:
            recipe: A recipe with a network that was timed.
        """
        self._update()
        return self._epoch_seconds[cost_key(recipe)]

    def evaluation_seconds(self, recipe: Recipe) -> float:
        """Predicted seconds of the evaluation after an epoch; 0 before any was observed.

        Args:
            recipe: What is trained.
        """
        self._update()
        seconds = self._known_or_estimated(self._evaluation_seconds, cost_key(recipe))
        return 0.0 if seconds is None else seconds

    def finish_seconds(self, recipe: Recipe) -> float:
        """Predicted seconds from the last epoch to the end: the final evaluation on all validation images.

        Args:
            recipe: What is trained.
        """
        if cost_key(recipe) in self._finishes:
            return self._recent(self._finishes[cost_key(recipe)])
        evaluation, constants = self.evaluation_seconds(recipe), self._constants
        if evaluation <= 0:
            return constants.default_finish_seconds
        return constants.finish_over_evaluation * evaluation + constants.finish_extra_seconds

    def remaining_seconds(self, recipe: Recipe, epochs_done: int) -> float | None:
        """Predicted seconds of the remaining epochs; None before any epoch was observed or measured.

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
        return total + (self._first_epoch_extra if epochs_done == 0 else 0.0)

    def trial_seconds(self, recipe: Recipe, *, cold: bool = False, epochs_done: int = 0) -> float | None:
        """Predicted seconds from an assignment to the end; None before any epoch was observed or measured.

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

    # -- estimation ----------------------------------------------------------------------------------------------------

    def _recent(self, window: deque[float]) -> float:
        if id(window) not in self._quantiles:
            constants = self._constants
            self._quantiles[id(window)] = recent_quantile(
                window, half_life=constants.start_half_life, fraction=constants.start_quantile
            )
        return self._quantiles[id(window)]

    def _update(self) -> None:
        """Estimates anew, if anything was observed since the last time."""
        if self._is_current:
            return
        self._is_current = True
        half_life = self._constants.slowness_half_life
        later = [epoch for epoch in self._epochs if not epoch.first]
        if later:
            self._epoch_seconds |= present_seconds(
                [epoch.key for epoch in later], [epoch.seconds / epoch.work for epoch in later], half_life=half_life
            )
        self._first_epoch_extra = self._estimate_first_epoch_extra()
        if self._epochs:
            self._epoch_seconds |= present_seconds(
                [epoch.key for epoch in self._epochs],
                [self._steps_seconds(epoch) / epoch.work for epoch in self._epochs],
                half_life=half_life,
            )
        self._predict_from_measurements()
        if self._evaluations:
            keys, seconds = zip(*self._evaluations, strict=True)
            self._evaluation_seconds |= present_seconds(keys, seconds, half_life=half_life)

    def _steps_seconds(self, epoch: _ObservedEpoch) -> float:
        if not epoch.first:
            return epoch.seconds
        return max(epoch.seconds - self._first_epoch_extra, _MIN_TRAINING_PART * epoch.seconds)

    def _estimate_first_epoch_extra(self) -> float:
        """Of the networks of which more than first epochs are known; before, in proportion to the first start."""
        known = {
            **self._measured,
            **{epoch.key: self._epoch_seconds[epoch.key] for epoch in self._epochs if not epoch.first},
        }
        firsts = [epoch for epoch in self._epochs if epoch.first and epoch.key in known]
        if not firsts:
            is_seen = any(epoch.first for epoch in self._epochs) and bool(self._cold_starts)
            return self._constants.first_epoch_extra_over_start * self._cold_starts[0] if is_seen else 0.0
        steps = [epoch.work * known[epoch.key] for epoch in firsts]
        extras = [max(epoch.seconds - seconds, 0.0) for epoch, seconds in zip(firsts, steps, strict=True)]
        # How long an epoch's steps take varies in proportion to them: short ones tell more of what comes on top.
        half_life, count = self._constants.start_half_life, len(firsts)
        weights = [
            0.5 ** ((count - 1 - index) / half_life) / max(seconds, _MIN_STEP_SECONDS) ** 2
            for index, seconds in enumerate(steps)
        ]
        return weighted_quantile(extras, weights)

    def _predict_from_measurements(self) -> None:
        """Networks of which some steps were measured, by how the others' epochs compare with their measured steps."""
        observed = {epoch.key for epoch in self._epochs}
        ratios = [self._epoch_seconds[key] / self._measured[key] for key in observed & self._measured.keys()]
        ratio = statistics.median(ratios) if ratios else 1.0
        for key, seconds in self._measured.items():
            if key not in observed:
                self._epoch_seconds[key] = ratio * seconds

    def _known_or_estimated(self, known: dict[CostKey, float], key: CostKey) -> float | None:
        if key in known:
            return known[key]
        above_zero = {timed: seconds for timed, seconds in known.items() if seconds > 0}
        return estimate_seconds(above_zero, key, self._constants) if above_zero else None
