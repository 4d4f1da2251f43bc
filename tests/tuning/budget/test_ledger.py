from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bloodauto.errors import RunError
from bloodauto.run.artifacts import LedgerCharge, LedgerFile
from bloodauto.tuning.budget.ledger import HEARTBEAT_SECONDS, Ledger

CHARGE = LedgerCharge(at_unix=1.0, phase="trial 0", device_seconds=5.0, spent_device_seconds=5.0)


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def open_ledger(folder: Path, clock: Clock, budget: float = 1000.0) -> Ledger:
    return Ledger(LedgerFile(folder / "ledger.jsonl"), budget_device_seconds=budget, now=clock, wall_clock=clock)


def test_every_second_of_a_slot_is_charged_to_its_phase(tmp_path: Path) -> None:
    clock = Clock()
    ledger = open_ledger(tmp_path, clock)
    ledger.reserve("a", 2.0, "start-up")
    ledger.reserve("b", 0.5, "start-up")
    clock.seconds += 10
    ledger.set_phase("a", "trial 0")
    clock.seconds += 20
    assert ledger.devices == 2.5
    assert ledger.spent_device_seconds == pytest.approx(30 * 2.5)
    assert ledger.remaining_device_seconds == pytest.approx(1000 - 75)
    ledger.release("a")
    ledger.release("b")
    clock.seconds += 1000
    assert ledger.spent_device_seconds == pytest.approx(75)
    assert LedgerFile(tmp_path / "ledger.jsonl").device_seconds_by_phase() == {"start-up": 20.0 + 15.0, "trial 0": 40.0}
    assert ledger.charged_for("trial 0") == 40.0


def test_setting_the_same_phase_again_makes_no_new_charge(tmp_path: Path) -> None:
    clock = Clock()
    ledger = open_ledger(tmp_path, clock)
    ledger.reserve("a", 1.0, "idle")
    for _ in range(50):
        clock.seconds += 0.1
        ledger.set_phase("a", "idle")
    ledger.release("a")
    assert len((tmp_path / "ledger.jsonl").read_text().splitlines()) == 1


def test_a_clean_end_leaves_no_heartbeat_and_a_restart_charges_nothing(tmp_path: Path) -> None:
    clock = Clock()
    ledger = open_ledger(tmp_path, clock)
    ledger.reserve("a", 1.0, "trial 0")
    clock.seconds += 30
    ledger.release("a")
    assert [path.name for path in tmp_path.iterdir()] == ["ledger.jsonl"]
    clock.seconds += 10_000
    assert open_ledger(tmp_path, clock).spent_device_seconds == pytest.approx(30)


@settings(max_examples=25)
@given(
    steps=st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.floats(0.0, 1.9)), min_size=1, max_size=30),
    downtime=st.floats(0, 1e6),
)
def test_a_kill_is_charged_for_what_was_used_and_not_for_the_downtime(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, float]], downtime: float
) -> None:
    folder, clock = tmp_path_factory.mktemp("ledger"), Clock()
    ledger = open_ledger(folder, clock)
    for slot in "abc":
        ledger.reserve(slot, 1.5, "start-up")
    for index, (slot, seconds) in enumerate(steps):
        clock.seconds += seconds
        ledger.heartbeat()
        ledger.set_phase(slot, f"trial {index}")
    used = ledger.spent_device_seconds
    clock.seconds += downtime
    again = open_ledger(folder, clock)
    # Lines carry milliseconds.
    assert used - 0.1 <= again.spent_device_seconds <= used + 3 * 1.5 * HEARTBEAT_SECONDS + 0.1
    assert open_ledger(folder, clock).spent_device_seconds == pytest.approx(again.spent_device_seconds, abs=0.1)


@pytest.mark.parametrize("torn", ['{"at_unix": 1, "purp', '{"at_unix": 1}', "\x00\x00\x00"])
def test_a_torn_last_line_is_taken_away(tmp_path: Path, torn: str) -> None:
    clock = Clock()
    path = tmp_path / "ledger.jsonl"
    path.write_text(CHARGE.to_line() + "\n" + torn)
    for expected in (5.0, 12.0):
        ledger = open_ledger(tmp_path, clock)
        assert ledger.spent_device_seconds == pytest.approx(expected)
        ledger.reserve("a", 1.0, "trial 1")
        clock.seconds += 7
        ledger.release("a")


def test_a_last_line_without_its_end_counts(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_text(CHARGE.to_line())
    clock = Clock()
    ledger = open_ledger(tmp_path, clock)
    ledger.reserve("a", 1.0, "trial 0")
    clock.seconds += 1
    ledger.release("a")
    assert LedgerFile(path).device_seconds_by_phase() == {"trial 0": 6.0}


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "[1]",
        CHARGE.to_line().replace("device_seconds", "seconds"),
        CHARGE.to_line().replace('"trial 0"', "3"),
        CHARGE.to_line().replace("5.0", "NaN"),
        CHARGE.to_line().replace("5.0", "-5"),
        CHARGE.to_line().replace("1,", "2,", 1),
    ],
)
def test_a_line_of_something_else_is_an_error_with_its_place(tmp_path: Path, line: str) -> None:
    path = tmp_path / "ledger.jsonl"
    good = CHARGE.to_line()
    path.write_text(f"{good}\n{line}\n{good}\n")
    with pytest.raises(RunError, match=r"ledger\.jsonl:2"):
        LedgerFile(path).device_seconds_by_phase()


def test_a_binary_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "ledger.jsonl").write_bytes(b"\xff\xfe\x00\n\xff\n")
    with pytest.raises(RunError, match=":1"):
        open_ledger(tmp_path, Clock())


def test_a_heartbeat_of_something_else_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "ledger.heartbeat.json").write_text('{"spent": 1}')
    with pytest.raises(RunError, match="heartbeat"):
        open_ledger(tmp_path, Clock())
