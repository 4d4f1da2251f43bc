"""The checker of runs sees each kind of damage, and none where there is none."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest

from bloodauto.config.objectives import Objectives
from bloodauto.config.space import parameters_of
from bloodauto.run.artifacts import LedgerCharge, TrainingHistory
from bloodauto.run.directory import RunDirectory
from bloodauto.testing.invariants import RunState, violations
from bloodauto.testing.run_factory import make_epoch
from bloodauto.testing.simulated_search import tiny_recipe, tiny_space
from bloodauto.tuning.study import StudyRecord, TrialEnd
from tests.tuning.executors.test_ends import write_training

SPACE = tiny_space()


def charge(run: RunDirectory, device_seconds: float, spent: float) -> None:
    line = LedgerCharge(at_unix=0.0, phase="trial 0", device_seconds=device_seconds, spent_device_seconds=spent)
    run.ledger.append(line)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """Trial 0 is complete with one epoch, trial 1 is open; ten device-seconds are spent."""
    run = RunDirectory(tmp_path)
    record = StudyRecord.open(run, SPACE, Objectives())
    for number in range(2):
        record.enqueue(parameters_of(SPACE, tiny_recipe(SPACE, learning_rate=(1 + number) * 1e-3)), "initial: any")
        record.ask(optuna.samplers.RandomSampler(seed=0))
    write_training(run.trial(0).root)
    run.trial(0).history.write(TrainingHistory(epochs=(make_epoch(1, objective=0.6),)))
    record.report(0, 1, 0.6)
    record.record_end(0, TrialEnd("complete", objective=0.7, epochs_done=1))
    charge(run, 10.0, 10.0)
    return run


def open_trial(run: RunDirectory) -> StudyRecord:
    """The study with its open trial, which a new session reopens."""
    record = StudyRecord.open(run, SPACE, Objectives())
    record.reopen(optuna.samplers.RandomSampler(seed=0))
    return record


def lose_a_file(run: RunDirectory) -> None:
    run.trial(0).predictions.delete()


def train_again(run: RunDirectory) -> None:
    run.trial(0).history.write(TrainingHistory(epochs=(make_epoch(2, objective=0.6),)))


def misreport(run: RunDirectory) -> None:
    write_training(run.trial(1).root)
    open_trial(run).record_end(1, TrialEnd("out_of_budget", "hard_deadline", epochs_done=1))


def claim_completion(run: RunDirectory) -> None:
    open_trial(run).record_end(1, TrialEnd("complete", objective=0.9, epochs_done=1))


def overspend(run: RunDirectory) -> None:
    charge(run, 60.0, 70.0)


def miscount(run: RunDirectory) -> None:
    charge(run, 5.0, 11.0)


def rewrite_the_ledger(run: RunDirectory) -> None:
    run.ledger.path.write_text(run.ledger.path.read_text().replace("trial 0", "trial 9"))


@pytest.mark.parametrize(
    ("damage", "finished", "problem"),
    [
        (lambda run: None, False, None),
        (lambda run: charge(run, 5.0, 15.0), False, None),
        (lose_a_file, False, "trial 0 was complete and has changed"),
        (train_again, False, r"trial 0 has the epochs \[2\]"),
        (misreport, False, "trial 1 finished on disk, and its outcome is out_of_budget"),
        (claim_completion, False, "trial 1 is complete, and its result on disk is not"),
        (overspend, False, "70.0 of 60.0 device-seconds are spent"),
        (miscount, False, "line 2 of the ledger says 11.0 spent, it is 15.000"),
        (rewrite_the_ledger, False, "the ledger does not continue"),
        (lambda run: None, True, "trial 1 is open although the search is finished"),
        (lambda run: None, True, "the search is finished without a model"),
    ],
)
def test_each_kind_of_damage_is_named(
    run: RunDirectory, damage: Callable[[RunDirectory], None], finished: bool, problem: str | None
) -> None:
    before = RunState.read(run)
    damage(run)
    problems = "; ".join(violations(run, before, budget_device_seconds=60.0, finished=finished))
    if problem is None:
        assert problems == ""
    else:
        assert re.search(problem, problems), problems
