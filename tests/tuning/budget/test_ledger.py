import errno
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bloodauto.clock import SimulatedClock
from bloodauto.errors import RunError
from bloodauto.run.artifacts import LedgerCharge, LedgerFile
from bloodauto.tuning.budget.ledger import HEARTBEAT_SECONDS, BudgetAccount, Ledger


def open_ledger(folder: Path, clock: SimulatedClock, budget: float = 1000.0) -> Ledger:
    return Ledger(LedgerFile(folder / "ledger.jsonl"), budget_device_seconds=budget, clock=clock)


CHARGE = LedgerCharge(at_unix=1.0, phase="trial 0", device_seconds=5.0, spent_device_seconds=5.0)


def test_every_second_of_a_slot_is_charged_to_its_phase(tmp_path: Path) -> None:
    clock = SimulatedClock()
    ledger = open_ledger(tmp_path, clock)
    ledger.reserve("a", 2.0, "start-up")
    ledger.reserve("b", 0.5, "start-up")
    clock.advance(10)
    ledger.set_phase("a", "trial 0")
    clock.advance(20)
    assert ledger.devices == 2.5
    assert ledger.spent_device_seconds == pytest.approx(30 * 2.5)
    assert ledger.remaining_device_seconds == pytest.approx(1000 - 75)
    ledger.release("a")
    ledger.release("b")
    clock.advance(1000)
    assert ledger.spent_device_seconds == pytest.approx(75)
    assert LedgerFile(tmp_path / "ledger.jsonl").device_seconds_by_phase() == {"start-up": 20.0 + 15.0, "trial 0": 40.0}
    assert ledger.charged_for("trial 0") == 40.0


def test_setting_the_same_phase_again_makes_no_new_charge(tmp_path: Path) -> None:
    clock = SimulatedClock()
    ledger = open_ledger(tmp_path, clock)
    ledger.reserve("a", 1.0, "idle")
    for _ in range(50):
        clock.advance(0.1)
        ledger.set_phase("a", "idle")
    ledger.release("a")
    assert len((tmp_path / "ledger.jsonl").read_text().splitlines()) == 1


def test_no_time_is_no_charge(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path, SimulatedClock())
    ledger.reserve("a", 1.0, "idle")
    ledger.set_phase("a", "trial 0")
    ledger.release("a")
    assert not (tmp_path / "ledger.jsonl").exists()


def test_a_clean_end_leaves_no_heartbeat_and_a_restart_charges_nothing(tmp_path: Path) -> None:
    clock = SimulatedClock()
    ledger = open_ledger(tmp_path, clock)
    ledger.reserve("a", 1.0, "trial 0")
    clock.advance(30)
    ledger.release("a")
    assert [path.name for path in tmp_path.iterdir()] == ["ledger.jsonl"]
    clock.advance(10_000)
    assert open_ledger(tmp_path, clock).spent_device_seconds == pytest.approx(30)


@settings(max_examples=25)
@given(
    steps=st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.floats(0.0, 1.9)), min_size=1, max_size=30),
    downtime=st.floats(0, 1e6),
)
def test_a_kill_is_charged_for_what_was_used_and_not_for_the_downtime(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, float]], downtime: float
) -> None:
    folder, clock = tmp_path_factory.mktemp("ledger"), SimulatedClock(100.0)
    ledger = open_ledger(folder, clock)
    for slot in "abc":
        ledger.reserve(slot, 1.5, "start-up")
    for index, (slot, seconds) in enumerate(steps):
        clock.advance(seconds)
        ledger.heartbeat()
        ledger.set_phase(slot, f"trial {index}")
    used = ledger.spent_device_seconds
    clock.advance(downtime)
    resumed = open_ledger(folder, clock)
    # Charges are rounded.
    assert used - 0.1 <= resumed.spent_device_seconds <= used + 3 * 1.5 * HEARTBEAT_SECONDS + 0.1
    assert open_ledger(folder, clock).spent_device_seconds == pytest.approx(resumed.spent_device_seconds, abs=0.1)


@pytest.mark.parametrize("torn", ['{"at_unix": 1, "pha', '{"at_unix": 1}', "\x00\x00\x00"])
def test_a_cut_last_line_is_removed(tmp_path: Path, torn: str) -> None:
    clock = SimulatedClock()
    path = tmp_path / "ledger.jsonl"
    path.write_text(CHARGE.to_line() + "\n" + torn)
    for expected in (5.0, 12.0):
        ledger = open_ledger(tmp_path, clock)
        assert ledger.spent_device_seconds == pytest.approx(expected)
        ledger.reserve("a", 1.0, "trial 1")
        clock.advance(7)
        ledger.release("a")


def test_a_last_line_without_its_end_counts(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_text(CHARGE.to_line())
    clock = SimulatedClock()
    ledger = open_ledger(tmp_path, clock)
    ledger.reserve("a", 1.0, "trial 0")
    clock.advance(1)
    ledger.release("a")
    assert LedgerFile(path).device_seconds_by_phase() == {"trial 0": 6.0}


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "[1]",
        '{"phase": "x"}',
        CHARGE.to_line().replace('"trial 0"', "3"),
        CHARGE.to_line().replace("5.0", "NaN"),
        CHARGE.to_line().replace("5.0", "-5"),
        CHARGE.to_line().replace('"format_version": 1', '"format_version": 99'),
    ],
)
def test_a_line_of_something_else_is_an_error_with_its_position(tmp_path: Path, line: str) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_text(f"{CHARGE.to_line()}\n{line}\n{CHARGE.to_line()}\n")
    with pytest.raises(RunError, match=r"ledger\.jsonl:2"):
        LedgerFile(path).device_seconds_by_phase()


def test_a_binary_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "ledger.jsonl").write_bytes(b"\xff\xfe\x00\n\xff\n")
    with pytest.raises(RunError, match=":1"):
        open_ledger(tmp_path, SimulatedClock())


def test_a_heartbeat_of_something_else_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "ledger.heartbeat.json").write_text('{"format_version": 1, "spent": 1}')
    with pytest.raises(RunError, match=r"heartbeat.*Delete it"):
        open_ledger(tmp_path, SimulatedClock())


# -- the account -----------------------------------------------------------------------------------------------------


def open_account(folder: Path, clock: SimulatedClock) -> BudgetAccount:
    return BudgetAccount(
        LedgerFile(folder / "ledger.jsonl"), budget_device_seconds=1000.0, devices_per_slot=2.0, clock=clock
    )


def test_a_search_pays_for_its_workers_and_then_for_the_driver_without_a_gap(tmp_path: Path) -> None:
    clock = SimulatedClock()
    account = open_account(tmp_path, clock)
    with account.worker_slots(3) as slots:
        clock.advance(10)
        assert account.ledger.devices == 6.0
        assert slots.names == ("worker 0", "worker 1", "worker 2")
    clock.advance(5)
    assert account.ledger.devices == 2.0
    with account.phase("ensemble"):
        clock.advance(7)
    clock.advance(1)
    with account.phase("export"):
        clock.advance(4)
    account.close()
    assert account.ledger.devices == 0.0
    assert LedgerFile(tmp_path / "ledger.jsonl").device_seconds_by_phase() == {
        "start-up": 60.0,
        "worker shutdown": 10.0,
        "ensemble": 16.0,
        "export": 8.0,
    }


def test_slots_that_were_handed_back_are_charged_nothing_more(tmp_path: Path) -> None:
    clock = SimulatedClock()
    account = open_account(tmp_path, clock)
    slots = account.reserve_workers(2)
    clock.advance(10)
    slots.hand_back()
    slots.hand_back()
    clock.advance(10)
    account.ledger.set_phase("worker 0", "idle")
    account.close()
    assert LedgerFile(tmp_path / "ledger.jsonl").device_seconds_by_phase() == {
        "start-up": 40.0,
        "worker shutdown": 20.0,
    }


def test_handing_back_is_completed_once_the_disk_has_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimulatedClock()
    account = open_account(tmp_path, clock)
    slots = account.reserve_workers(2)
    clock.advance(10)

    def refuse(file: LedgerFile, charge: LedgerCharge) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full_disk:
        full_disk.setattr(LedgerFile, "append", refuse)
        for _ in range(2):
            with pytest.raises(OSError, match="No space left"):
                slots.hand_back()
    clock.advance(10)
    slots.hand_back()
    account.close()
    by_phase = LedgerFile(tmp_path / "ledger.jsonl").device_seconds_by_phase()
    # Until the workers are handed back, the driver is charged besides them: never too little.
    assert by_phase == {"start-up": 80.0, "worker shutdown": 20.0}


def test_a_phase_alone_reserves_the_driver(tmp_path: Path) -> None:
    clock = SimulatedClock()
    account = open_account(tmp_path, clock)
    with account.phase("distill"):
        clock.advance(100)
        assert account.seconds_left == pytest.approx(400.0)
    account.close()
    assert LedgerFile(tmp_path / "ledger.jsonl").device_seconds_by_phase() == {"distill": 200.0}


def raise_while_workers_are_reserved(path: Path) -> None:
    clock = SimulatedClock()
    with (
        BudgetAccount.open(LedgerFile(path), budget_device_seconds=1.0, devices_per_slot=1.0, clock=clock) as account,
        account.worker_slots(2),
    ):
        raise RuntimeError("a fault")


def test_an_error_releases_everything(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="fault"):
        raise_while_workers_are_reserved(tmp_path / "ledger.jsonl")
    assert not (tmp_path / "ledger.heartbeat.json").exists()
