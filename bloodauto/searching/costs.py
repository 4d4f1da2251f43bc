"""What a training will cost, from what others have cost."""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import dataclass, field

from bloodauto.recipe import LastBlocks, LastLayers, Recipe, Stage
from bloodauto.trial.backbones import backbone_info, num_blocks

#: A forward pass alone, as a share of a full training step.
_FORWARD_SHARE = 0.4
#: Cost of a step over parameters, for a backbone nobody has timed yet: measured 0.6 over the MobileNets on a CPU.
_SIZE_EXPONENT = 0.6
_UNKNOWN_START_UP_SECONDS = 15.0


def step_share(backbone: str, stage: Stage) -> float:
    """Cost of a step with this stage's unfrozen depth, as a share of one with everything unfrozen."""
    if stage.unfreeze == "all":
        return 1.0
    if stage.unfreeze == "none":
        return _FORWARD_SHARE
    if isinstance(stage.unfreeze, LastBlocks):
        depth = min(stage.unfreeze.blocks / num_blocks(backbone), 1.0)
    else:
        assert isinstance(stage.unfreeze, LastLayers)
        depth = min(stage.unfreeze.layers / 150, 1.0)
    return _FORWARD_SHARE + (1 - _FORWARD_SHARE) * depth


@dataclass
class CostModel:
    """Seconds on one worker; learns from every epoch and every start."""

    _full_epochs: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    _evaluations: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    _starts: list[float] = field(default_factory=list)

    def saw_epoch(self, recipe: Recipe, stage: int, seconds: float, evaluation_seconds: float) -> None:
        """Notes an epoch's wall seconds, and how many of them were evaluation."""
        share = step_share(recipe.backbone.name, recipe.stages[stage])
        self._full_epochs[recipe.backbone.name].append((seconds - evaluation_seconds) / share)
        self._evaluations[recipe.backbone.name].append(evaluation_seconds)

    def saw_start(self, seconds: float) -> None:
        """Notes the wall seconds from a training's assignment to its first epoch."""
        self._starts.append(seconds)

    @property
    def start_seconds(self) -> float:
        """Predicted start-up: a generous one, since the first batches also trace the graph."""
        return max(self._starts[-8:]) if self._starts else _UNKNOWN_START_UP_SECONDS

    def _scaled(self, known: dict[str, list[float]], backbone: str) -> float | None:
        if backbone in known:
            return statistics.median(known[backbone])
        size = backbone_info(backbone).parameters
        guesses = [
            statistics.median(seconds) * (size / backbone_info(other).parameters) ** _SIZE_EXPONENT
            for other, seconds in known.items()
        ]
        return max(guesses) if guesses else None

    def epoch_seconds(self, recipe: Recipe, stage: int) -> float | None:
        """Predicted seconds of one epoch, evaluation included; None before any epoch was seen."""
        training = self._scaled(self._full_epochs, recipe.backbone.name)
        if training is None:
            return None
        return training * step_share(recipe.backbone.name, recipe.stages[stage]) + self.evaluation_seconds(recipe)

    def evaluation_seconds(self, recipe: Recipe) -> float:
        """Predicted seconds of one evaluation; 0 before any was seen."""
        seconds = self._scaled(self._evaluations, recipe.backbone.name)
        return 0.0 if seconds is None else seconds

    def trial_seconds(self, recipe: Recipe) -> float | None:
        """Predicted seconds of the whole recipe, start-up and last evaluation included; None before any epoch was seen."""
        epochs = [self.epoch_seconds(recipe, index) for index in range(len(recipe.stages))]
        if epochs[0] is None:
            return None
        training = sum(stage.epochs * (seconds or 0.0) for stage, seconds in zip(recipe.stages, epochs, strict=True))
        return self.start_seconds + training + self.finish_seconds(recipe)

    def finish_seconds(self, recipe: Recipe) -> float:
        """Predicted seconds of the last evaluation, on all validation images."""
        return 2 * self.evaluation_seconds(recipe) + 1.0
