"""Equal failures in a row end a search before any epoch has ended, and only then."""

from __future__ import annotations

from bloodauto.tuning.failure_streak import MAX_EQUAL_FAILURES, FailureStreak
from bloodauto.tuning.messages import Completed, Crashed, Interrupted, Rejected, Stopped, TrainingEnd

REJECTED = Rejected("rejected", "no weights")
LOST = Interrupted("worker_died", "gone")


def reasons(*ends: TrainingEnd, any_epoch_ended: bool = False) -> list[str | None]:
    streak = FailureStreak(any_epoch_ended=any_epoch_ended)
    return [streak.training_ended(end) for end in ends]


def test_the_fifth_equal_failure_ends_the_search() -> None:
    *before, last = reasons(*[REJECTED] * MAX_EQUAL_FAILURES)
    assert before == [None] * (MAX_EQUAL_FAILURES - 1)
    assert last == "the first 5 trainings failed for one reason, rejected: no weights"


def test_another_reason_or_another_end_begins_a_new_count() -> None:
    for other in (LOST, Crashed("a fault", "", "crash"), Stopped(), Completed(0.5, ())):
        assert set(reasons(*[REJECTED] * 4, other, *[REJECTED] * 4)) == {None}


def test_after_any_epoch_failures_are_those_of_single_trainings() -> None:
    assert set(reasons(*[LOST] * 20, any_epoch_ended=True)) == {None}
    streak = FailureStreak(any_epoch_ended=False)
    streak.epoch_ended()
    assert [streak.training_ended(LOST) for _ in range(20)] == [None] * 20
