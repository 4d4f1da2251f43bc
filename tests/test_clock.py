import pytest

from bloodauto.clock import SimulatedClock, SystemClock


def test_a_simulated_clock_moves_only_when_it_is_moved() -> None:
    clock = SimulatedClock(10.0)
    assert (clock.now(), clock.wall()) == (10.0, 10.0)
    clock.advance(5.0)
    clock.move_to(20.0)
    assert (clock.now(), clock.wall()) == (20.0, 20.0)


def test_a_simulated_clock_does_not_run_backward() -> None:
    clock = SimulatedClock(10.0)
    with pytest.raises(AssertionError, match="from 10"):
        clock.move_to(9.0)
    with pytest.raises(AssertionError, match="0 or more"):
        clock.advance(-1.0)


def test_the_system_clock_runs_forward_and_knows_the_date() -> None:
    clock = SystemClock()
    earlier = clock.now()
    assert clock.now() >= earlier
    assert clock.wall() > 1_700_000_000
