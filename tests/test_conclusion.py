from __future__ import annotations

import time
from pathlib import Path

import optuna
import pytest

from bloodauto.conclusion import _failures, conclude, is_over
from bloodauto.data.synth import synthesize, write_dataset
from bloodauto.files import RunDirectory, write_text
from bloodauto.searching.closing import DRIVER
from bloodauto.searching.ledger import Ledger
from bloodauto.searching.prepare import find_space
from bloodauto.searching.session import Plan, make_plan
from bloodauto.searching.settings import new_settings


def test_failures_are_counted_by_reason_with_a_message_of_each() -> None:
    study = optuna.create_study()
    for outcome, reason, message in (
        ("failed", "io", "OSError: [Errno 28] No space left on device"),
        ("pruned", "rung_1", ""),
        ("failed", "io", "OSError: [Errno 28] No space left on device"),
        ("failed", "nan", "the answers are no numbers"),
    ):
        trial = study.ask()
        for name, value in (("outcome", outcome), ("reason", reason), ("message", message)):
            trial.set_user_attr(name, value)
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    assert _failures(study) == (
        "2 failed (io: OSError: [Errno 28] No space left on device); 1 failed (nan: the answers are no numbers)"
    )
    assert _failures(optuna.create_study()) == ""


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    folder = tmp_path_factory.mktemp("conclusion")
    write_dataset(synthesize(160, laboratory="lab_a", seed=3, image_size_px=24), folder / "cells.npz")
    settings = new_settings({"data": str(folder / "cells.npz"), "budget": "10cpu-s", "space": "tiny", "workers": 2})
    return make_plan(RunDirectory(folder / "run"), settings, find_space("tiny"))


@pytest.mark.parametrize("spent", [6.0, 9.5, 30.0])
def test_however_slow_a_step_is_the_budget_is_kept_and_what_is_missing_is_said(
    plan: Plan, tmp_path: Path, spent: float
) -> None:
    """Six seconds of a budget of ten are spent, or almost all, or more than all by an earlier session."""
    write_text(tmp_path / "ledger.jsonl", f'{{"purpose": "trial 0", "device_seconds": {spent}}}\n')
    ledger = Ledger(tmp_path / "ledger.jsonl", budget_device_seconds=10, now=time.monotonic, wall_clock=time.time)
    study, said = optuna.create_study(), []

    def slow_step(name: str) -> None:
        said.append(name)
        if name == "choosing the ensemble":
            time.sleep(60)

    ledger.reserve(DRIVER, 1.0, "end of the trainings")
    conclude(plan, study, ledger, export=True, phase=slow_step)
    ledger.release(DRIVER)
    assert ledger.spent_device_seconds <= max(10.0, spent + 1.0)
    assert ledger.spent_device_seconds >= max(9.0, spent)
    assert f"export-best --run {plan.run.root}" in said[-1]
    assert is_over(study), "nothing more is to be trained: a later export may choose the ensemble"
    assert not plan.run.ensemble.exists()
