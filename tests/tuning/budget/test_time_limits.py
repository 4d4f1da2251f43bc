from __future__ import annotations

import contextlib
import signal
import threading
import time

import pytest

from bloodauto.testing.simulated_search import tiny_recipe, tiny_space
from bloodauto.tuning.budget.cost_model import CostModel
from bloodauto.tuning.budget.time_limits import OutOfBudget, hard_time_limit, heartbeat_timeout_seconds


def compute_for_ever() -> None:
    while True:
        sum(range(1000))


def compute_and_handle_every_error() -> None:
    while True:
        with contextlib.suppress(Exception):
            time.sleep(0.05)


def test_a_block_past_its_limit_is_interrupted() -> None:
    started = time.monotonic()
    with pytest.raises(OutOfBudget), hard_time_limit(0.3):
        compute_for_ever()
    assert 0.3 <= time.monotonic() - started < 1.5


def test_waiting_for_a_thread_or_a_lock_is_interrupted_too() -> None:
    with pytest.raises(OutOfBudget), hard_time_limit(0.2):
        threading.Event().wait(20)


def test_code_that_catches_errors_does_not_catch_it() -> None:
    with pytest.raises(OutOfBudget), hard_time_limit(0.2):
        compute_and_handle_every_error()


def test_the_alarm_repeats_when_the_first_was_lost() -> None:
    lost: list[BaseException] = []

    def lose_one() -> None:
        try:
            time.sleep(5)
        except BaseException as error:
            lost.append(error)
        time.sleep(5)

    with pytest.raises(OutOfBudget), hard_time_limit(0.1):
        lose_one()
    assert len(lost) == 1


def test_a_quick_block_raises_nothing_and_no_alarm_follows() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with hard_time_limit(0.2):
        pass
    time.sleep(0.4)
    assert signal.getsignal(signal.SIGALRM) is before


def test_an_earlier_alarm_still_fires() -> None:
    rings: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: rings.append(number))
    earlier = signal.setitimer(signal.ITIMER_REAL, 0.6)
    try:
        with hard_time_limit(0.3):
            time.sleep(0.1)
        assert not rings
        time.sleep(0.8)
        assert rings == [signal.SIGALRM]
    finally:
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *earlier)


def test_with_no_time_left_nothing_starts() -> None:
    started = time.monotonic()
    with pytest.raises(OutOfBudget), hard_time_limit(-3.0):
        time.sleep(5)
    assert time.monotonic() - started < 2.5


def test_in_another_thread_there_is_no_alarm() -> None:
    finished = []

    def work() -> None:
        with hard_time_limit(0.05):
            time.sleep(0.2)
            finished.append(1)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert finished == [1]


def test_a_network_that_was_timed_may_be_silent_for_four_times_its_longest_step() -> None:
    recipe, costs = tiny_recipe(tiny_space()), CostModel()
    costs.observe_start(20.0, cold=True)
    costs.observe_epoch(recipe, 0, 12.0, 2.0)
    costs.observe_finish(recipe, 5.0)
    assert heartbeat_timeout_seconds(costs, recipe) == pytest.approx(4 * (20.0 + 5.0))


def test_a_network_that_nobody_has_timed_may_be_silent_for_ten_minutes_or_more() -> None:
    recipe, costs = tiny_recipe(tiny_space()), CostModel()
    assert heartbeat_timeout_seconds(costs, recipe) == 600.0
    costs.observe_start(200.0, cold=True)
    assert heartbeat_timeout_seconds(costs, recipe) == pytest.approx(8 * (200.0 + 5.0))
