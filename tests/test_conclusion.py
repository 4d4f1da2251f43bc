from __future__ import annotations

import optuna

from bloodauto.conclusion import _failures


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
