"""The constants of the search's decisions in one place, each with its reason; ``docs`` prints them as tables."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from bloodauto.run.artifacts.base import Record

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
UnitFraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Constants(Record):
    """A set of constants; the description of each field is its reason.

    Example:
        >>> SchedulerConstants.reasons()["max_refits"]
        'More networks than this gain an ensemble little; more are planned only for more workers.'
    """

    model_config = ConfigDict(use_attribute_docstrings=True)

    @classmethod
    def reasons(cls) -> dict[str, str]:
        """The reason for each constant, by name."""
        return {name: str(field.description) for name, field in cls.model_fields.items()}


class SchedulerConstants(Constants):
    """What decides about suggestions, pruning, refits and restarts."""

    max_unaffordable_suggestions: Count = 8
    """A small budget has room for a small network only; after so many suggestions that do not fit, the next end is awaited."""
    max_invalid_suggestions: Count = 64
    """Suggestions in a row that are no valid recipes before a worker slot waits: a space may hold many of them."""
    startup_trials: Count = 6
    """Suggestions drawn at random before TPE models anything: it needs a few trials to tell good from bad."""
    local_perturbation_fraction: UnitFraction = 0.5
    """Fraction of suggestions near the incumbent: a few dozen trials are too few for TPE (PriorBand, arXiv:2306.12370)."""
    max_perturbation_tries: Count = 16
    """A perturbation may be no valid recipe, or one that was tried; then another is drawn, so many times."""
    median_startup_trials: Count = 4
    """The median of fewer curves is noise."""
    score_tolerance: UnitFraction = 0.02
    """Recipes this near to the best are refitted beside it: closer than that, their order is noise."""
    other_backbone_score_tolerance: UnitFraction = 0.05
    """With another backbone a recipe may be so far behind: networks that err differently gain more together."""
    max_refit_recipes: Count = 4
    """Refits of more recipes than this would each be too short."""
    max_refits: Count = 10
    """More networks than this gain an ensemble little; more are planned only for more workers."""
    refit_over_trial: Positive = 1.5
    """Seconds of a refit over those of its trial: it starts from the trial's weights, and less gains little."""
    min_refit_over_trial: Positive = 0.5
    """In a small budget a refit may get this little: rather one for each recipe than several of the best."""
    min_refit_epoch_factor: Positive = 8.0
    """Epochs of a refit over those of its trial: so many that time ends it."""
    min_refit_epoch_fraction: UnitFraction = 0.25
    """A refit starts from its trial's weights, so that even this part of an epoch pays for its start."""
    max_restarts: Annotated[int, Field(ge=0)] = 2
    """How often a training whose process died is restarted from its checkpoint; a recipe that kills its process would loop."""


class BudgetConstants(Constants):
    """What decides how a budget is divided, what a training is predicted to cost, and how long a silence is normal."""

    max_useful_refit_over_trial: Positive = 3.0
    """Beyond so many times the seconds of its trial a refit gains nothing; the search gets the rest."""
    overrun_fraction: UnitFraction = 0.1
    """Running trials may use this fraction of the refit budget: a trial that is almost done is worth finishing."""
    initial_overrun_fraction: UnitFraction = 0.6
    """Initial configurations may use more: a refit resumes from them, and other backbones are what an ensemble gains by."""
    max_finalization_fraction: UnitFraction = 0.35
    """At most this fraction of the budget is reserved for the finalization, however slow it is predicted to be."""
    finalization_overrun_fraction: UnitFraction = 0.3
    """Trainings that should be over may use so much of the finalization's reserve before they are ended."""
    min_finalization_fraction: UnitFraction = 0.7
    """So much of the reserve is kept from trainings that were assigned a later end than now seems right."""

    forward_fraction: UnitFraction = 0.4
    """A forward pass over a full training step; measured, and what a frozen network still costs."""
    default_start_seconds: Positive = 15.0
    """A start before any was measured: TensorFlow's import, the first graph."""
    default_finish_seconds: Positive = 5.0
    """The final evaluation of a training before any evaluation was measured."""
    finish_over_evaluation: Positive = 2.0
    """The final evaluation sees all validation images, the one after an epoch about half of them."""
    finish_extra_seconds: NonNegative = 1.0
    """Writing predictions and measuring latency, in the final evaluation."""
    epoch_window: Count = 64
    """Epochs that count: the machine may have become busier or quieter since earlier ones."""
    start_window: Count = 8
    """Starts and finishes that count, likewise; there is one of each in a training."""
    evaluation_margin: Positive = 1.3
    """The last evaluation of a training may take so much longer than predicted."""
    batch_fraction: UnitFraction = 0.01
    """The last batch of an epoch is finished after the time limit; this is its part of the epoch."""

    worker_shutdown_seconds: NonNegative = 1.0
    """What ending a worker takes on a quiet machine."""
    worker_shutdown_over_start: NonNegative = 0.1
    """What ending a worker takes besides, over a cold start: a crowded machine is slow in both."""
    exported_members: Count = 5
    """Networks whose predictions the finalization is planned for."""
    export_prediction_margin: Positive = 1.2
    """A member's predictions for the held-out test set over its final evaluation in training."""
    export_seconds: NonNegative = 6.0
    """What writing an export takes even of the smallest network, on a quiet CPU."""
    export_over_start: NonNegative = 0.6
    """What it takes besides, over a cold start: both build networks and trace graphs."""
    finalization_margin: Positive = 1.4
    """On the finalization as a whole: nothing can be borrowed for it."""

    parameter_exponent: Positive = 0.45
    """Seconds of a training step grow with the number of parameters to this power; measured on a CPU."""
    parameter_exponent_deviation: Positive = 0.12
    """Standard deviation of that power between machines and architectures."""
    layer_exponent: Positive = 0.7
    """Seconds grow with the number of layers to this power: many thin layers cost more than their parameters tell."""
    layer_exponent_deviation: Positive = 0.3
    """Standard deviation of that power."""
    machine_deviation: Positive = 100.0
    """Standard deviation of the logarithm of the machine's speed, of which nothing is known before the first measurement."""
    cost_noise: Positive = 0.15
    """Standard deviation of a network's cost around the two powers, in logarithms."""
    conservative_deviations: NonNegative = 0.5
    """An estimate is so many standard deviations above the likeliest value: a training that does not fit is lost."""

    min_heartbeat_timeout_seconds: NonNegative = 120.0
    """No training is called hanging after less silence than this."""
    heartbeat_timeout_factor: Positive = 4.0
    """A silence may be so many times the longest step without heartbeats of a network that was timed."""
    estimated_heartbeat_timeout_factor: Positive = 8.0
    """Likewise of a network that nobody has timed: an estimate may be wrong by far."""
    min_estimated_heartbeat_timeout_seconds: NonNegative = 600.0
    """Tracing and compiling a network that nobody has timed may take minutes."""


SCHEDULER_CONSTANTS = SchedulerConstants()
BUDGET_CONSTANTS = BudgetConstants()
