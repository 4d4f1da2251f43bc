"""What a training will cost, from what others have cost."""

from __future__ import annotations

import statistics
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass

from bloodauto.config.recipe import Backbone, LastBlocks, LastLayers, Recipe, Stage
from bloodauto.models.backbones import num_blocks, num_layers
from bloodauto.tuning.budget.cost_regression import CostKey, estimate_seconds

#: A forward pass alone, as a share of a full training step.
_FORWARD_FRACTION = 0.4
_DEFAULT_START_UP_SECONDS = 15.0
#: Members whose answers the export is planned for, and the margin on what comes after the last training.
_EXPORTED_MEMBERS = 5
_FINALIZATION_MARGIN = 1.4
#: What ending a worker and writing an export take even of the smallest network, on a quiet CPU.
_WORKER_SHUTDOWN_SECONDS = 1.0
_EXPORT_SECONDS = 6.0
_DEFAULT_FINISH_SECONDS = 5.0
#: So many latest measurements count; the machine may have become busier or quieter since the earlier ones.
_EPOCH_WINDOW = 64
_START_WINDOW = 8


@dataclass(frozen=True)
class Timing:
    """What one training took, in wall seconds on its worker; kept in the study for a resumed search.

    Attributes:
        start_seconds: from its assignment to its first epoch; ``cold``: on a worker that had to start up itself.
        full_epoch_seconds: training part of an epoch with everything unfrozen.
        evaluation_seconds: of an epoch.
        finish_seconds: from its last epoch to its end; None when it was stopped before.
    """

    start_seconds: float
    cold: bool
    full_epoch_seconds: float
    evaluation_seconds: float
    finish_seconds: float | None


def step_cost_fraction(backbone: Backbone, stage: Stage) -> float:
    """Cost of a step with this stage's unfrozen depth, as a share of one with everything unfrozen."""
    if stage.unfreeze == "all":
        return 1.0
    if stage.unfreeze == "none":
        return _FORWARD_FRACTION
    if isinstance(stage.unfreeze, LastBlocks):
        depth = min(stage.unfreeze.blocks / num_blocks(backbone), 1.0)
    else:
        assert isinstance(stage.unfreeze, LastLayers)
        depth = min(stage.unfreeze.layers / num_layers(backbone), 1.0)
    return _FORWARD_FRACTION + (1 - _FORWARD_FRACTION) * depth


def _cost_key(recipe: Recipe) -> CostKey:
    architecture = recipe.backbone.model_copy(update={"weights": "none", "batch_norm": "train"})
    return architecture, recipe.input.size_px


class CostModel:
    """Seconds on one worker; learns from every epoch, every start and every end."""

    def __init__(self) -> None:
        self._full_epochs: dict[CostKey, deque[float]] = defaultdict(lambda: deque(maxlen=_EPOCH_WINDOW))
        self._first_epochs: dict[CostKey, deque[float]] = defaultdict(lambda: deque(maxlen=_EPOCH_WINDOW))
        self._evaluations: dict[CostKey, deque[float]] = defaultdict(lambda: deque(maxlen=_EPOCH_WINDOW))
        self._finishes: dict[CostKey, deque[float]] = defaultdict(lambda: deque(maxlen=_START_WINDOW))
        self._cold_starts: deque[float] = deque(maxlen=_START_WINDOW)
        self._warm_starts: deque[float] = deque(maxlen=_START_WINDOW)

    def observe_epoch(
        self, recipe: Recipe, stage: int, seconds: float, evaluation_seconds: float, *, first: bool = False
    ) -> None:
        """Notes an epoch's wall seconds, and how many of them were evaluation.

        Args:
            first: of its training; it is slower than those that follow, since graphs are traced and caches are empty.
        """
        share = step_cost_fraction(recipe.backbone, recipe.stages[stage])
        epochs = self._first_epochs if first else self._full_epochs
        epochs[_cost_key(recipe)].append((seconds - evaluation_seconds) / share)
        self._evaluations[_cost_key(recipe)].append(evaluation_seconds)

    def observe_start(self, seconds: float, *, cold: bool) -> None:
        """Notes the wall seconds from a training's assignment to its first epoch; ``cold``: its process started too."""
        (self._cold_starts if cold else self._warm_starts).append(seconds)

    def observe_finish(self, recipe: Recipe, seconds: float) -> None:
        """Notes the wall seconds from a training's last epoch to its end."""
        self._finishes[_cost_key(recipe)].append(seconds)

    def timing(self, recipe: Recipe, *, start_seconds: float, cold: bool, finish_seconds: float | None) -> Timing:
        """What is known of this kind of training, to be kept; at least one of its epochs must have been seen."""
        return Timing(
            start_seconds=start_seconds,
            cold=cold,
            full_epoch_seconds=self._training_medians()[_cost_key(recipe)],
            evaluation_seconds=statistics.median(self._evaluations[_cost_key(recipe)]),
            finish_seconds=finish_seconds,
        )

    def restore(self, recipe: Recipe, timing: Timing) -> None:
        """Learns from a training of an earlier session."""
        self.observe_start(timing.start_seconds, cold=timing.cold)
        self._full_epochs[_cost_key(recipe)].append(timing.full_epoch_seconds)
        self._evaluations[_cost_key(recipe)].append(timing.evaluation_seconds)
        if timing.finish_seconds is not None:
            self.observe_finish(recipe, timing.finish_seconds)

    def start_seconds(self, *, cold: bool = False) -> float:
        """Predicted start-up: a generous one, since the first batches also trace the graph."""
        first, second = (self._cold_starts, self._warm_starts) if cold else (self._warm_starts, self._cold_starts)
        seen = first if first else second
        return max(seen) if seen else _DEFAULT_START_UP_SECONDS

    @property
    def _first_epoch_ratio(self) -> float:
        """How many times as long the first epoch of a training takes as its others; 1 or more."""
        both = self._first_epochs.keys() & self._full_epochs.keys()
        ratios = [
            statistics.median(self._first_epochs[cost_key]) / max(statistics.median(self._full_epochs[cost_key]), 1e-9)
            for cost_key in both
        ]
        return max(statistics.median(ratios), 1.0) if ratios else 1.0

    def _training_medians(self) -> dict[CostKey, float]:
        """Seconds of an epoch's training but for the first, as far as those show it, of every kind that was seen."""
        over = self._first_epoch_ratio
        of_first = {cost_key: statistics.median(seconds) / over for cost_key, seconds in self._first_epochs.items()}
        return of_first | {cost_key: statistics.median(seconds) for cost_key, seconds in self._full_epochs.items()}

    @staticmethod
    def _median_or_estimate(medians: dict[CostKey, float], cost_key: CostKey) -> float | None:
        if cost_key in medians:
            return medians[cost_key]
        timed = {one: seconds for one, seconds in medians.items() if seconds > 0}
        return estimate_seconds(timed, cost_key) if timed else None

    def has_timed(self, recipe: Recipe) -> bool:
        """Whether an epoch of this backbone at this size was seen, so that predictions are no guesses from others."""
        return _cost_key(recipe) in self._evaluations

    def epoch_seconds(self, recipe: Recipe, stage: int, *, first: bool = False) -> float | None:
        """Predicted seconds of one epoch, the training's first or another, evaluation included; None before any was seen."""
        training = self._median_or_estimate(self._training_medians(), _cost_key(recipe))
        if training is None:
            return None
        if first:
            training *= self._first_epoch_ratio
        return training * step_cost_fraction(recipe.backbone, recipe.stages[stage]) + self.evaluation_seconds(recipe)

    def evaluation_seconds(self, recipe: Recipe) -> float:
        """Predicted seconds of one evaluation; 0 before any was seen."""
        medians = {cost_key: statistics.median(seconds) for cost_key, seconds in self._evaluations.items()}
        seconds = self._median_or_estimate(medians, _cost_key(recipe))
        return 0.0 if seconds is None else seconds

    def finalization_slot_seconds(self, recipes: Sequence[Recipe], workers: int) -> float:
        """Predicted seconds of reserved slots after the last training: every worker's end, then one slot's export.

        Both have a part that is the same for every network and a part that a cold start measures, on a quiet machine as on a
        crowded one. To that come the answers of a few members to the held-out test, its views and simulated sites, each
        somewhat more than the last judgement of a training.

        Args:
            recipes: of which members will be; as many of each.
        """
        start = self.start_seconds(cold=True)
        judging = statistics.fmean(self.finish_seconds(recipe) for recipe in recipes) if recipes else 0.0
        answers = _EXPORTED_MEMBERS * 1.2 * judging
        end_of_worker = _WORKER_SHUTDOWN_SECONDS + start / 10
        export = _EXPORT_SECONDS + 0.6 * start + answers
        return _FINALIZATION_MARGIN * (workers * end_of_worker + export)

    def remaining_seconds(self, recipe: Recipe, epochs_done: int) -> float | None:
        """Predicted seconds of the epochs that are left, start-up and finish left out; None before any epoch was seen."""
        total, begins = 0.0, 0
        for index, stage in enumerate(recipe.stages):
            left = stage.epochs - min(max(epochs_done - begins, 0), stage.epochs)
            begins += stage.epochs
            seconds = self.epoch_seconds(recipe, index)
            if seconds is None:
                return None
            total += left * seconds
        if epochs_done == 0:
            total += (self.epoch_seconds(recipe, 0, first=True) or 0.0) - (self.epoch_seconds(recipe, 0) or 0.0)
        return total

    def trial_seconds(self, recipe: Recipe, *, cold: bool = False, epochs_done: int = 0) -> float | None:
        """Predicted seconds of the rest of a recipe, start-up and finish included; None before any epoch was seen."""
        training = self.remaining_seconds(recipe, epochs_done)
        if training is None:
            return None
        return self.start_seconds(cold=cold) + training + self.finish_seconds(recipe)

    def finish_seconds(self, recipe: Recipe) -> float:
        """Predicted seconds of the last evaluation, on all validation images."""
        if _cost_key(recipe) in self._finishes:
            return max(self._finishes[_cost_key(recipe)])
        evaluation = self.evaluation_seconds(recipe)
        return 2 * evaluation + 1.0 if evaluation > 0 else _DEFAULT_FINISH_SECONDS
