import math

import pytest

from bloodauto.config.recipe import Recipe
from bloodauto.testing.simulated_search import tiny_recipe, tiny_space
from bloodauto.training.limits import ScheduleProgress, TimeLimits, stage_ends

RECIPE = tiny_recipe(tiny_space())


def with_stages(*epochs: int) -> Recipe:
    stages = tuple(RECIPE.stages[0].model_copy(update={"epochs": count}) for count in epochs)
    return RECIPE.model_copy(update={"stages": stages})


@pytest.mark.parametrize(
    ("first_batch_at", "seconds"),
    [(100.0, 60.0), (90.0, 70.0), (130.0, 30.0), (150.0, 18.0), (1000.0, 18.0)],
)
def test_a_late_start_shortens_a_training_that_has_to_end_at_a_moment_but_not_to_nothing(
    first_batch_at: float, seconds: float
) -> None:
    limits = TimeLimits(training_seconds=60.0, schedule_until=160.0)
    assert limits.training_seconds_from(first_batch_at) == pytest.approx(seconds)


def test_without_a_moment_the_planned_seconds_count_from_the_first_batch() -> None:
    assert TimeLimits(training_seconds=60.0).training_seconds_from(1e6) == 60.0
    assert TimeLimits().training_seconds_from(1e6) is None


def test_the_deadline_is_the_last_moment() -> None:
    limits = TimeLimits(hard_deadline=50.0)
    assert not limits.is_past_deadline(50.0)
    assert limits.is_past_deadline(50.1)
    assert not TimeLimits().is_past_deadline(1e12)


def test_limits_move_to_another_clock_with_all_their_moments() -> None:
    limits = TimeLimits(training_seconds=60.0, schedule_until=160.0, hard_deadline=200.0)
    assert limits.shifted(1000.0) == TimeLimits(60.0, 1160.0, 1200.0)
    assert TimeLimits().shifted(1000.0) == TimeLimits()


def test_stages_end_in_proportion_to_their_epochs() -> None:
    assert stage_ends(with_stages(1, 3)) == (0.25, 1.0)
    assert stage_ends(with_stages(*[1] * 7))[-1] == 1.0


def test_progress_by_steps_alone() -> None:
    progress = ScheduleProgress((0.25, 1.0), training_seconds=None)
    for _ in range(25):
        progress.advance(0.01)
    assert progress.fraction(1e9) == pytest.approx(0.25)
    assert progress.stage_fraction(0, 0.0) >= 1.0, "sums of steps do not reach a quarter exactly"
    assert progress.stage_fraction(1, 0.0) == pytest.approx(0.0, abs=1e-5)
    assert progress.seconds_until_stage_end(0) == math.inf


def test_time_ends_a_stage_that_steps_would_not() -> None:
    progress = ScheduleProgress((0.25, 1.0), training_seconds=100.0)
    progress.advance(0.01)
    assert progress.seconds_until_stage_end(0) == pytest.approx(25.0)
    assert progress.stage_fraction(0, 24.0) < 1.0 <= progress.stage_fraction(0, 25.0)
    assert progress.fraction(1000.0) == 1.0


def test_a_resumed_training_spreads_its_time_over_what_is_left() -> None:
    progress = ScheduleProgress((1.0,), training_seconds=50.0, done=0.5)
    assert progress.fraction(0.0) == 0.5
    assert progress.fraction(25.0) == pytest.approx(0.75)
    assert progress.seconds_until_stage_end(0) == pytest.approx(50.0)


def test_the_rest_of_a_stage_can_be_skipped() -> None:
    progress = ScheduleProgress((0.25, 1.0), training_seconds=None)
    progress.end_stage(0)
    assert progress.by_steps == 0.25
    progress.advance(0.5)
    progress.end_stage(0)
    assert progress.by_steps == 0.75
