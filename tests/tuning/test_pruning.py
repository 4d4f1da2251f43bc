from typing import Any

import optuna
import pytest

from bloodauto.tuning.pruning import plan_pruning


@pytest.mark.parametrize(
    ("max_epochs", "rungs"),
    [(2, (1,)), (6, (1, 3)), (8, (1, 3)), (10, (1, 3, 9)), (24, (3, 9)), (80, (10, 30)), (200, (25, 75))],
)
def test_rungs(max_epochs: int, rungs: tuple[int, ...]) -> None:
    assert plan_pruning("successive_halving", max_epochs=max_epochs).rungs == rungs


@pytest.mark.parametrize("max_epochs", [2, 6, 24, 80])
def test_the_pruner_decides_at_the_announced_rungs_and_nowhere_else(max_epochs: int) -> None:
    plan = plan_pruning("successive_halving", max_epochs=max_epochs)
    study = optuna.create_study(direction="maximize", pruner=plan.build())
    decided = set()
    for number in range(60):
        trial = study.ask()
        for epoch in range(1, max_epochs):
            # Ever worse trials: each rung stops all it can.
            trial.report(1.0 - number / 100 if epoch in plan.rungs[-1:] else float(number), epoch)
            if trial.should_prune():
                decided.add(epoch)
                break
        study.tell(trial.number, state=optuna.trial.TrialState.PRUNED)
    assert decided == {plan.rungs[-1]}


@pytest.mark.parametrize("name", ["successive_halving", "hyperband"])
def test_resources_are_explicit(name: str) -> None:
    # Optuna's "auto" needs a finished trial and takes the first one's length, whatever that was.
    plan = plan_pruning(name, max_epochs=24)  # type: ignore[arg-type]
    pruner: Any = plan.build()
    assert pruner._min_resource == plan.rungs[0] == 3
    if name == "hyperband":
        assert pruner._max_resource == 24


@pytest.mark.parametrize("name", ["successive_halving", "hyperband", "median"])
def test_a_bad_trial_is_stopped_and_a_good_one_is_not(name: str) -> None:
    plan = plan_pruning(name, max_epochs=9)  # type: ignore[arg-type]
    study = optuna.create_study(direction="maximize", pruner=plan.build(), study_name="fixed")
    for number in range(12):
        trial = study.ask()
        for epoch in range(1, 10):
            trial.report(0.5 + number / 100, epoch)
        study.tell(trial.number, 0.5 + number / 100)
    stopped = {}
    for quality in (0.99, 0.01):
        trial = study.ask()
        stopped[quality] = False
        for epoch in range(1, 9):
            trial.report(quality, epoch)
            stopped[quality] |= trial.should_prune()
    if name == "hyperband":  # A trial may fall into the bracket that never stops anything.
        assert not stopped[0.99]
    else:
        assert stopped == {0.99: False, 0.01: True}


def test_none_and_single_epochs_are_never_pruned() -> None:
    for plan in (plan_pruning("none", max_epochs=50), plan_pruning("hyperband", max_epochs=1)):
        assert plan.rungs == ()
        assert isinstance(plan.build(), optuna.pruners.NopPruner)
        assert plan.table() == "no pruning: every trial completes"


def test_the_table_names_epochs_and_fractions() -> None:
    assert plan_pruning("successive_halving", max_epochs=24).table() == (
        "successive halving: after epoch 3, 9 of 24, about 1 trial in 3 continues"
    )
    assert "Hyperband" in plan_pruning("hyperband", max_epochs=24).table()
    assert plan_pruning("median", max_epochs=4).table() == (
        "median pruner: after each of the epochs 1, 2, 3, trials below the median stop"
    )
