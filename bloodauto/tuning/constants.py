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

    target_trials: Count = 40
    """Suggestions are made so short that there is time for so many; many short ones find more (i-Epoch, arXiv:2404.04111)."""
    min_trial_steps: Count = 128
    """A suggestion trains for at least so many steps, or an epoch where that is less; after fewer, recipes look alike."""
    min_suggestions: Count = 4
    """Where there is no time for so many, initial configurations and refits get it: the best of a few is seldom better."""
    min_training_over_overhead: NonNegative = 1.0
    """A suggestion trains at least so many times as long as it takes to start and to evaluate it."""
    min_initial_epochs: Positive = 1.0
    """An initial configuration for which there is not even so much time waits; a larger network is worth nothing before."""
    initial_fraction: UnitFraction = 0.5
    """Initial configurations may take this fraction of the search's time; the rest is for suggestions."""
    trial_slack: Positive = 1.25
    """A trial may take so many times what was predicted before time ends it, its schedule decayed: epochs vary."""
    promotion_factor: Annotated[int, Field(ge=2)] = 4
    """Of so many suggestions that time ended the best one goes on, to so many times their time (ASHA, arXiv:1810.05934)."""
    min_suggestion_fraction: UnitFraction = 0.5
    """A suggestion begins while the search has this part of its time left; the rest is taken from the refits."""
    max_suggestion_draws: Count = 48
    """Draws of a suggestion until one is a valid recipe that fits; then a network that fits is put into the last one."""
    startup_trials: Count = 6
    """Suggestions drawn at random before TPE models anything: it needs a few trials to tell good from bad."""
    local_perturbation_fraction: UnitFraction = 0.5
    """Fraction of suggestions near the incumbent: a few dozen trials are too few for TPE (PriorBand, arXiv:2306.12370)."""
    max_perturbation_tries: Count = 16
    """A perturbation may be no valid recipe, or one that was tried; then another is drawn, so many times."""
    prior_fraction: UnitFraction = 0.67
    """So many of the first suggestions are drawn with trials of earlier runs in view; the others show whether these mislead."""
    prior_half_life: Positive = 8.0
    """Trials of this search after which that fraction is half: trials of earlier runs come from other images."""
    median_startup_trials: Count = 4
    """The median of fewer curves is noise."""
    score_tolerance: UnitFraction = 0.02
    """Recipes this near to the best are refitted beside it: closer than that, their order is noise."""
    other_backbone_score_tolerance: UnitFraction = 0.05
    """With another backbone a recipe may be so far behind: networks that err differently gain more together."""
    other_backbone_error_tolerance: NonNegative = 0.5
    """Or behind by so much of the best one's error, where that is more: after short trainings larger networks are behind."""
    max_refit_recipes: Count = 4
    """Refits of more recipes than this would each be too short."""
    max_refits: Count = 10
    """More networks than this gain an ensemble little; more are planned only for more workers."""
    refit_over_trial: Positive = 1.5
    """More refits than workers only if each has so many times the seconds of all epochs of its recipe; less gains little."""
    curve_exponent: Positive = 0.15
    """Errors fall with the length of training to the power of minus this, before the run has learning curves of its own."""
    curve_exponent_part: UnitFraction = 0.5
    """So much of the exponent within trainings is expected between trainings of different lengths."""
    curve_exponent_weight: Positive = 4.0
    """So many curves or trials the assumptions about exponent and deviation count for."""
    trial_deviation: Positive = 0.25
    """Standard deviation of the logarithm of the error between recipes, before there are trials that show it."""
    trial_signal_fraction: UnitFraction = 0.7
    """So much of the deviation between trials lasts in longer training; the rest is noise."""
    ensemble_gain: UnitFraction = 0.35
    """Fraction of the members' mean error that infinitely many members take away; measured in whole searches."""
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
    default_warm_start_seconds: Positive = 3.0
    """A start on a worker that has trained before, before any was measured: building the network, the first graph."""
    first_epoch_extra_over_start: NonNegative = 0.25
    """What a first epoch takes besides its steps, over a cold start, until that is seen: a slow machine is slow in both."""
    default_finish_seconds: Positive = 5.0
    """The final evaluation of a training before any evaluation was measured."""
    finish_over_evaluation: Positive = 2.0
    """The final evaluation sees all validation images, the one after an epoch about half of them."""
    finish_extra_seconds: NonNegative = 1.0
    """Writing predictions and measuring latency, in the final evaluation."""
    epoch_window: Count = 32
    """Epochs that count: the machine may have become busier or quieter since earlier ones."""
    slowness_half_life: Positive = 2.0
    """So many epochs ago an epoch says half as much about how busy the machine is now."""
    start_window: Count = 8
    """Starts and finishes that count; there is one of each in a training."""
    start_half_life: Positive = 3.0
    """So many starts or finishes ago one counts half."""
    start_quantile: UnitFraction = 0.7
    """Starts and finishes vary more than epochs do, and one that was underestimated costs a training its last seconds."""
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
