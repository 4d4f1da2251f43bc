import pytest

from bloodauto.config.recipe import Input, LastBlocks, Recipe
from bloodauto.testing.simulated_search import tiny_recipe, tiny_space
from bloodauto.tuning.budget.cost_estimate import step_cost_fraction
from bloodauto.tuning.budget.cost_model import CostModel

SPACE = tiny_space()
SMALL, LARGE = tiny_recipe(SPACE, 16), tiny_recipe(SPACE, 32)


def with_frozen_stage(recipe: Recipe) -> Recipe:
    frozen = recipe.stages[0].model_copy(update={"unfreeze": "none", "epochs": 2})
    return recipe.model_copy(update={"stages": (frozen, *recipe.stages)})


def test_nothing_is_predicted_before_the_first_observation() -> None:
    costs = CostModel()
    assert costs.epoch_seconds(SMALL, 0) is None
    assert costs.trial_seconds(SMALL) is None
    assert not costs.has_timed(SMALL)


def test_a_trial_is_start_epochs_and_finish() -> None:
    costs = CostModel()
    costs.observe_start(9.0, cold=True)
    costs.observe_start(2.0, cold=False)
    for seconds in (10.0, 12.0, 50.0):
        costs.observe_epoch(SMALL, 0, seconds, 2.0)
    costs.observe_finish(SMALL, 5.0)
    assert costs.trial_seconds(SMALL) == pytest.approx(2.0 + 6 * 12.0 + 5.0)
    assert costs.trial_seconds(SMALL, cold=True) == pytest.approx(9.0 + 6 * 12.0 + 5.0)
    assert costs.trial_seconds(SMALL, epochs_done=4) == pytest.approx(2.0 + 2 * 12.0 + 5.0)


def test_what_a_first_epoch_takes_besides_is_kept_apart() -> None:
    costs = CostModel()
    costs.observe_epoch(LARGE, 0, 38.0, 2.0, first=True)
    assert costs.epoch_seconds(LARGE, 0) == pytest.approx(38.0), "nothing else was observed"
    for seconds, first in ((26.0, True), (12.0, False), (12.0, False)):
        costs.observe_epoch(SMALL, 0, seconds, 2.0, first=first)
    assert costs.first_epoch_extra_seconds() == pytest.approx(14.0)
    assert costs.epoch_seconds(SMALL, 0) == pytest.approx(12.0)
    assert costs.epoch_seconds(SMALL, 0, first=True) == pytest.approx(26.0)
    assert costs.epoch_seconds(LARGE, 0) == pytest.approx(36.0 - 14.0 + 2.0), "graphs take as long to trace"
    assert costs.remaining_seconds(LARGE, 1) == pytest.approx(5 * 24.0)
    assert costs.remaining_seconds(LARGE, 0) == pytest.approx(14.0 + 6 * 24.0)


def test_a_quick_first_epoch_does_not_raise_other_predictions() -> None:
    costs = CostModel()
    for seconds, first in ((8.0, True), (12.0, False)):
        costs.observe_epoch(SMALL, 0, seconds, 2.0, first=first)
    costs.observe_epoch(LARGE, 0, 20.0, 2.0, first=True)
    assert costs.first_epoch_extra_seconds() == 0.0


def test_an_epoch_that_time_ended_is_no_whole_epoch() -> None:
    costs = CostModel()
    costs.observe_epoch(SMALL, 0, 10.0, 0.0)
    costs.observe_epoch(SMALL, 0, 19.0, 0.0, first=True, epoch_fraction=0.5)
    assert costs.first_epoch_extra_seconds() == pytest.approx(14.0)
    for _ in range(3):
        costs.observe_epoch(SMALL, 0, 5.0, 0.0, epoch_fraction=0.5)
    assert costs.epoch_seconds(SMALL, 0) == pytest.approx(10.0)


def test_the_rest_of_an_epoch_that_an_earlier_session_began_says_little() -> None:
    costs = CostModel()
    costs.observe_epoch(SMALL, 0, 8.0, 0.0, epoch_fraction=0.5, is_resumed=True)
    assert costs.epoch_seconds(SMALL, 0) == pytest.approx(16.0), "it is better than nothing"
    for _ in range(8):
        costs.observe_epoch(SMALL, 0, 10.0, 0.0)
    # Eight seconds of tracing, and a step or two.
    costs.observe_epoch(SMALL, 0, 8.0, 0.0, epoch_fraction=0.05, is_resumed=True)
    assert costs.epoch_seconds(SMALL, 0) == pytest.approx(10.0)


def predicted_small_and_large(costs: CostModel) -> tuple[float, float]:
    small, large = costs.epoch_seconds(SMALL, 0), costs.epoch_seconds(LARGE, 0)
    assert small is not None
    assert large is not None
    return small, large


def test_a_burst_of_a_neighbour_changes_predictions_while_it_lasts() -> None:
    """Also those of a network that was not observed meanwhile; one slow epoch changes nothing."""
    costs = CostModel()
    for _ in range(3):
        costs.observe_epoch(LARGE, 0, 30.0, 0.0)
    for _ in range(8):
        costs.observe_epoch(SMALL, 0, 10.0, 0.0)
    costs.observe_epoch(SMALL, 0, 21.0, 0.0)
    assert predicted_small_and_large(costs) == pytest.approx((10.0, 30.0))
    for _ in range(4):
        costs.observe_epoch(SMALL, 0, 20.0, 0.0)
    assert predicted_small_and_large(costs) == pytest.approx((20.0, 60.0), rel=0.1)
    for _ in range(4):
        costs.observe_epoch(SMALL, 0, 10.0, 0.0)
    assert predicted_small_and_large(costs) == pytest.approx((10.0, 30.0), rel=0.1)


def test_a_network_that_was_timed_in_a_burst_alone_is_not_thought_slow_for_ever() -> None:
    costs = CostModel()
    for seconds in (10.0, 10.0, 10.0, 10.0, 20.0, 20.0):
        costs.observe_epoch(SMALL, 0, seconds, 0.0)
    costs.observe_epoch(LARGE, 0, 60.0, 0.0)
    for seconds in (20.0, 20.0, *[10.0] * 6):
        costs.observe_epoch(SMALL, 0, seconds, 0.0)
    assert predicted_small_and_large(costs) == pytest.approx((10.0, 30.0), rel=0.1)


def test_measured_steps_predict_until_epochs_are_observed() -> None:
    costs = CostModel()
    costs.observe_steps(SMALL, 8.0)
    costs.observe_steps(LARGE, 20.0)
    assert predicted_small_and_large(costs) == pytest.approx((8.0, 20.0))
    assert not costs.has_timed(SMALL)
    costs.observe_epoch(SMALL, 0, 12.0, 2.0)
    assert predicted_small_and_large(costs) == pytest.approx((12.0, 25.0 + 2.0), rel=0.25), "as much slower as measured"
    costs.observe_epoch(LARGE, 0, 42.0, 2.0)
    assert predicted_small_and_large(costs)[1] == pytest.approx(42.0, rel=0.01)


def test_a_cold_start_does_not_predict_warm_starts() -> None:
    costs = CostModel()
    assert costs.start_seconds() < costs.start_seconds(cold=True)
    costs.observe_start(40.0, cold=True)
    assert costs.start_seconds() < 5.0
    costs.observe_start(6.0, cold=False)
    assert costs.start_seconds() == 6.0
    assert costs.start_seconds(cold=True) == 40.0


def test_an_unseen_backbone_costs_more_when_larger_and_an_unseen_size_by_its_pixels() -> None:
    costs = CostModel()
    costs.observe_epoch(SMALL, 0, 10.0, 1.0)
    seen, unseen = costs.epoch_seconds(SMALL, 0), costs.epoch_seconds(LARGE, 0)
    assert seen is not None
    assert unseen is not None
    # Four times the parameters; measured 1.8 times the seconds.
    assert 1.5 * seen < unseen < 2.5 * seen
    larger = costs.epoch_seconds(SMALL.model_copy(update={"input": Input(size_px=96)}), 0)
    assert 4 * seen < larger < 5 * seen, "four times the pixels, and a margin for an estimate"
    assert costs.has_timed(SMALL)
    assert not costs.has_timed(LARGE)


def test_frozen_stages_cost_less() -> None:
    costs = CostModel()
    two_stages = with_frozen_stage(SMALL)
    costs.observe_epoch(two_stages, 1, 11.0, 1.0)
    assert costs.epoch_seconds(two_stages, 0) == pytest.approx(0.4 * 10.0 + 1.0)
    assert costs.remaining_seconds(two_stages, 1) == pytest.approx(5.0 + 6 * 11.0)
    fractions = [
        step_cost_fraction(SMALL.backbone, SMALL.stages[0].model_copy(update={"unfreeze": LastBlocks(blocks=n)}))
        for n in (1, 2, 4)
    ]
    assert 0.4 < fractions[0] < fractions[1] < fractions[2] == 1.0


def test_timings_restore_the_cost_model() -> None:
    costs = CostModel()
    costs.observe_epoch(SMALL, 0, 10.0, 2.0)
    timing = costs.timing(SMALL, start_seconds=4.0, cold=False, finish_seconds=3.0)
    restored = CostModel.from_timings([(SMALL, timing)])
    assert restored.trial_seconds(SMALL) == pytest.approx(4.0 + 60.0 + 3.0)


def test_a_time_limit_leaves_room_for_start_evaluations_and_the_last_batch() -> None:
    costs = CostModel()
    costs.observe_start(9.0, cold=True)
    costs.observe_start(2.0, cold=False)
    costs.observe_epoch(SMALL, 0, 12.0, 2.0)
    costs.observe_finish(SMALL, 5.0)
    assert costs.overhead_seconds(SMALL, cold=False) == pytest.approx(2.0 + 1.3 * 2.0 + 0.01 * 12.0 + 5.0)
    assert costs.overhead_seconds(SMALL, cold=True) == pytest.approx(costs.overhead_seconds(SMALL, cold=False) + 7.0)


def test_an_epoch_of_no_seconds_is_no_missing_prediction() -> None:
    costs = CostModel()
    costs.observe_epoch(SMALL, 0, 0.0, 0.0)
    assert costs.epoch_seconds(SMALL, 0) == pytest.approx(0.0, abs=1e-6)
    assert costs.remaining_seconds(SMALL, 0) == pytest.approx(0.0, abs=1e-6)
