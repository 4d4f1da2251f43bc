"""What the page says of a network that learnt from the ensemble, and of what the ensemble was chosen from."""

from __future__ import annotations

import pytest

from bloodauto.report import parse_results as parse_end
from bloodauto.report.distilled import student, student_table

DISTILLED = {
    "network": "own_cnn <b>at 32 px",
    "parameters": 6000,
    "teacher_parameters": 31000,
    "comparison": {
        "scores": {"accuracy": 0.912, "loss": 0.5},
        "teacher_scores": {"accuracy": 0.934, "loss": 0.4},
        "agreement": 0.95,
        "agreement_shifted": 0.88,
    },
}


def test_the_student_stands_beside_its_ensemble() -> None:
    shown = str(student_table(student(DISTILLED)))
    for words in ("6,000", "31,000", "91.2", "93.4", "0.500", "95", "88", "&lt;b&gt;"):
        assert words in shown, words
    assert student_table(None) is None


def test_damaged_values_are_said() -> None:
    with pytest.raises(ValueError, match="comparison"):
        student({**DISTILLED, "comparison": 3})


def test_what_an_ensemble_was_chosen_from_is_read_or_absent() -> None:
    candidate_counts = {"trials": 7, "refits": 4, "pruned": 12, "promising": 5, "evaluated": 3}
    found = parse_end.ensemble({"members": [], "candidate_counts": candidate_counts}).candidate_counts
    assert found is not None
    assert (found.trials, found.pruned, found.promising, found.evaluated) == (7, 12, 5, 3)
    assert parse_end.ensemble({"members": []}).candidate_counts is None
