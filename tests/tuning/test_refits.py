import pytest
from hypothesis import given
from hypothesis import strategies as st

from bloodauto.config.recipe import Schedule
from bloodauto.testing.simulated_search import tiny_recipe, tiny_space
from bloodauto.tuning.refits import Finished, plan_refits, stretched

RECIPES = [tiny_recipe(tiny_space(), learning_rate=1e-3 * (1 + index)) for index in range(5)]
TRIALS = [Finished(index, recipe, 0.90 - 0.008 * index) for index, recipe in enumerate(RECIPES)]


def test_with_room_for_them_whole_sets_of_folds_of_the_best_recipes() -> None:
    planned = plan_refits(TRIALS, count=11, num_folds=5, seed=3)
    assert [(one.trial, one.fold) for one in planned] == [(trial, fold) for trial in (0, 1) for fold in range(5)]
    assert {one.seed for one in planned} == {3}


def test_with_less_room_all_leave_out_the_trials_own_fold() -> None:
    planned = plan_refits(TRIALS, count=4, num_folds=5, seed=3)
    assert [(one.trial, one.fold) for one in planned] == [(0, 0), (1, 0), (2, 0), (0, 0)]
    assert 3 not in {one.seed for one in planned}, "a refit with the trial's own seed would be the trial again"


def test_recipes_far_from_the_best_and_copies_are_left_out() -> None:
    far = [Finished(0, RECIPES[0], 0.9), Finished(1, RECIPES[0], 0.9), Finished(2, RECIPES[1], 0.87)]
    assert {one.trial for one in plan_refits(far, count=4, num_folds=5, seed=0)} == {0}


def test_another_backbone_comes_before_more_of_the_same() -> None:
    """Suggestions near the best trial are near copies of it; an ensemble gains by what errs differently."""
    wide = [tiny_recipe(tiny_space(), width=32, learning_rate=rate) for rate in (2e-3, 3e-3)]
    trials = [*TRIALS[:3], Finished(7, wide[0], 0.86), Finished(8, wide[1], 0.855)]
    planned = plan_refits(trials, count=4, num_folds=5, seed=0)
    assert [one.trial for one in planned] == [0, 7, 1, 2]
    far = [*TRIALS[:3], Finished(7, wide[0], 0.84)]
    assert [one.trial for one in plan_refits(far, count=4, num_folds=5, seed=0)] == [0, 1, 2, 0]


def test_workers_that_sets_of_folds_leave_over_get_seeds() -> None:
    planned = plan_refits(TRIALS[:1], count=8, num_folds=5, seed=3, workers=8)
    assert sorted(one.fold for one in planned) == [0, 0, 0, 0, 1, 2, 3, 4]


@given(count=st.integers(1, 40), num_folds=st.integers(2, 6), workers=st.integers(1, 16), trials=st.integers(1, 5))
def test_names_are_unique_and_no_worker_is_without_one(count: int, num_folds: int, workers: int, trials: int) -> None:
    planned = plan_refits(TRIALS[:trials], count=count, num_folds=num_folds, seed=0, workers=workers)
    assert len({one.name for one in planned}) == len(planned)
    assert workers <= len(planned) <= max(count, workers)
    assert planned == plan_refits(
        list(reversed(TRIALS[:trials])), count=count, num_folds=num_folds, seed=0, workers=workers
    )


@pytest.mark.parametrize(("factor", "epochs"), [(8.0, 48), (2.5, 15), (1e6, 1000)])
def test_stretched(factor: float, epochs: int) -> None:
    long = stretched(RECIPES[0], factor)
    assert [stage.epochs for stage in long.stages] == [epochs]
    assert long.stages[0].early_stopping is None
    assert long.stages[0].schedule == RECIPES[0].stages[0].schedule
    assert long.model_copy(update={"stages": RECIPES[0].stages}).id == RECIPES[0].id


@pytest.mark.parametrize(("factor", "epochs", "patience"), [(8.0, 48, 16), (0.4, 3, 1), (1e6, 1000, 333)])
def test_a_plateau_is_as_patient_a_share_of_a_stretched_stage(factor: float, epochs: int, patience: int) -> None:
    schedule = Schedule(name="plateau", metric="objective", factor=0.5, patience_epochs=2)
    stage = RECIPES[0].stages[0].model_copy(update={"epochs": 6, "schedule": schedule})
    long = stretched(RECIPES[0].model_copy(update={"stages": (stage,)}), factor).stages[0]
    assert (long.epochs, long.schedule.patience_epochs) == (epochs, patience)
