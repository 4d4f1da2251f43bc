import pytest
from hypothesis import given
from hypothesis import strategies as st

from bloodauto.config.recipe import Schedule
from bloodauto.testing.simulated_search import tiny_recipe, tiny_space
from bloodauto.tuning.refits import CompletedTrial, plan_refits, with_extended_epochs

RECIPES = [tiny_recipe(tiny_space(), learning_rate=1e-3 * (1 + index)) for index in range(5)]
TRIALS = [CompletedTrial(index, recipe, 0.90 - 0.008 * index) for index, recipe in enumerate(RECIPES)]


def test_a_large_budget_refits_the_best_recipes_on_all_folds() -> None:
    planned = plan_refits(TRIALS, count=11, num_folds=5, seed=3)
    assert [(refit.trial, refit.fold) for refit in planned] == [(trial, fold) for trial in (0, 1) for fold in range(5)]
    assert {refit.seed for refit in planned} == {3}


def test_a_small_budget_refits_on_the_fold_of_the_trials() -> None:
    planned = plan_refits(TRIALS, count=4, num_folds=5, seed=3)
    assert [(refit.trial, refit.fold) for refit in planned] == [(0, 0), (1, 0), (2, 0), (0, 0)]
    assert 3 not in {refit.seed for refit in planned}, "a refit with the trial's own seed would be the trial again"


def test_distant_and_duplicate_recipes_are_excluded() -> None:
    far = [CompletedTrial(0, RECIPES[0], 0.9), CompletedTrial(1, RECIPES[0], 0.9), CompletedTrial(2, RECIPES[1], 0.87)]
    assert {refit.trial for refit in plan_refits(far, count=4, num_folds=5, seed=0)} == {0}


def test_another_backbone_comes_before_more_of_the_same() -> None:
    """Local perturbations are near copies of the incumbent; an ensemble gains by networks that err differently."""
    wide = [tiny_recipe(tiny_space(), width=32, learning_rate=rate) for rate in (2e-3, 3e-3)]
    trials = [*TRIALS[:3], CompletedTrial(7, wide[0], 0.86), CompletedTrial(8, wide[1], 0.855)]
    planned = plan_refits(trials, count=4, num_folds=5, seed=0)
    assert [refit.trial for refit in planned] == [0, 7, 1, 2]
    far = [*TRIALS[:3], CompletedTrial(7, wide[0], 0.84)]
    assert [refit.trial for refit in plan_refits(far, count=4, num_folds=5, seed=0)] == [0, 1, 2, 0]


def test_while_networks_are_hardly_trained_a_large_one_may_be_far_behind() -> None:
    """After an epoch the network that is better in the end is often the worse one; both go on."""
    wide = tiny_recipe(tiny_space(), width=32)
    early = [CompletedTrial(0, RECIPES[0], 0.77), CompletedTrial(1, wide, 0.71)]
    assert {refit.trial for refit in plan_refits(early, count=2, num_folds=5, seed=0)} == {0, 1}
    late = [CompletedTrial(0, RECIPES[0], 0.97), CompletedTrial(1, wide, 0.91)]
    assert {refit.trial for refit in plan_refits(late, count=2, num_folds=5, seed=0)} == {0}


def test_spare_workers_get_other_seeds() -> None:
    planned = plan_refits(TRIALS[:1], count=8, num_folds=5, seed=3, workers=8)
    assert sorted(refit.fold for refit in planned) == [0, 0, 0, 0, 1, 2, 3, 4]


@given(count=st.integers(1, 40), num_folds=st.integers(2, 6), workers=st.integers(1, 16), trials=st.integers(1, 5))
def test_names_are_unique_and_no_worker_is_without_one(count: int, num_folds: int, workers: int, trials: int) -> None:
    planned = plan_refits(TRIALS[:trials], count=count, num_folds=num_folds, seed=0, workers=workers)
    assert len({refit.name for refit in planned}) == len(planned)
    assert workers <= len(planned) <= max(count, workers)
    assert planned == plan_refits(
        list(reversed(TRIALS[:trials])), count=count, num_folds=num_folds, seed=0, workers=workers
    )


@pytest.mark.parametrize(("factor", "epochs"), [(8.0, 48), (2.5, 15), (1e6, 1000)])
def test_extended_epoch_budget(factor: float, epochs: int) -> None:
    long = with_extended_epochs(RECIPES[0], factor)
    assert [stage.epochs for stage in long.stages] == [epochs]
    assert long.stages[0].early_stopping is None
    assert long.stages[0].schedule == RECIPES[0].stages[0].schedule
    assert long.model_copy(update={"stages": RECIPES[0].stages}).id == RECIPES[0].id


@pytest.mark.parametrize(("factor", "epochs", "patience"), [(8.0, 48, 16), (0.4, 3, 1), (1e6, 1000, 333)])
def test_patience_scales_with_the_extended_epoch_budget(factor: float, epochs: int, patience: int) -> None:
    schedule = Schedule(name="plateau", metric="objective", factor=0.5, patience_epochs=2)
    stage = RECIPES[0].stages[0].model_copy(update={"epochs": 6, "schedule": schedule})
    long = with_extended_epochs(RECIPES[0].model_copy(update={"stages": (stage,)}), factor).stages[0]
    assert (long.epochs, long.schedule.patience_epochs) == (epochs, patience)
