"""The ledger: every device-second that was reserved, on disk, across restarts; and the account that owns it."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Concatenate, ParamSpec, Self, TypeVar

from bloodauto.clock import SYSTEM_CLOCK, Clock
from bloodauto.run.artifacts import LedgerCharge, LedgerFile, LedgerHeartbeat
from bloodauto.run.training_directory import ArtifactFile

#: How often the running total is noted. After a kill, up to one such interval is charged on top of what was noted.
HEARTBEAT_SECONDS = 2.0
#: The slot of the process that drives a search, or that is the only one.
DRIVER_SLOT = "driver"
_START_UP = "start-up"
_WORKER_SHUTDOWN = "worker shutdown"
_DECIMALS = 6

P = ParamSpec("P")
R = TypeVar("R")


@dataclass
class _OpenSlot:
    devices: float
    phase: str
    charged_until: float


def _synchronized(method: Callable[Concatenate[Ledger, P], R]) -> Callable[Concatenate[Ledger, P], R]:
    """Lets one thread at a time use the ledger: the thread that ends the workers charges slots, too."""

    @functools.wraps(method)
    def locked(ledger: Ledger, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with ledger._lock:
            return method(ledger, *args, **kwargs)

    return locked


class Ledger:
    """Counts devices reserved x seconds reserved, by phase.

    A slot is a number of devices that is reserved as a whole, such as those of one worker. From ``reserve`` to ``release``
    every second of it is charged to some phase, ``idle`` included, so that nothing is free of charge. Each line of the file
    is one charge. A heartbeat file beside it holds what the open slots have run up since, so that a killed search is charged
    for what it used, and not for the time until somebody resumes it.

    Args:
        file: The ledger's file; what it holds counts as spent.
        budget_device_seconds: How much may be spent; may be infinite.
        clock: Measures the time that is charged.

    Attributes:
        clock: The same.

    Raises:
        RunError: The file is no ledger of this version.
    """

    def __init__(self, file: LedgerFile, *, budget_device_seconds: float, clock: Clock) -> None:
        self.budget_device_seconds = budget_device_seconds
        self._file, self.clock = file, clock
        self._lock = threading.RLock()
        self._slots: dict[str, _OpenSlot] = {}
        self._last_heartbeat = float("-inf")
        self._by_phase = file.device_seconds_by_phase()
        file.repair_last_line()
        self._charged = sum(self._by_phase.values())
        self._charge_interrupted()

    @property
    def _heartbeat_file(self) -> ArtifactFile[LedgerHeartbeat]:
        return ArtifactFile(self._file.heartbeat_path, LedgerHeartbeat)

    def _charge_interrupted(self) -> None:
        """Charges what a killed session had run up since its last charge."""
        heartbeat = self._heartbeat_file.read_if_exists()
        if heartbeat is None:
            return
        missing = heartbeat.spent_device_seconds + heartbeat.devices * HEARTBEAT_SECONDS - self._charged
        if missing > 0:
            self._write("interrupted", missing)
        self._heartbeat_file.delete()

    def _write(self, phase: str, device_seconds: float) -> None:
        # What is counted is what is written, so that a resume counts the same.
        device_seconds = round(device_seconds, _DECIMALS)
        if device_seconds <= 0:
            return
        charged = self._charged + device_seconds
        self._file.append(
            LedgerCharge(
                at_unix=self.clock.wall(),
                phase=phase,
                device_seconds=device_seconds,
                spent_device_seconds=round(charged, _DECIMALS),
            )
        )
        self._charged = charged
        self._by_phase[phase] = self.charged_for(phase) + device_seconds

    @property
    @_synchronized
    def devices(self) -> float:
        """Devices that are reserved now."""
        return sum(slot.devices for slot in self._slots.values())

    @property
    @_synchronized
    def spent_device_seconds(self) -> float:
        """All charges, and what the open slots have run up since theirs."""
        now = self.clock.now()
        return self._charged + sum(slot.devices * (now - slot.charged_until) for slot in self._slots.values())

    @property
    def remaining_device_seconds(self) -> float:
        """The budget less what is spent; negative when too much was."""
        return self.budget_device_seconds - self.spent_device_seconds

    def charged_for(self, phase: str) -> float:
        """Device-seconds charged to a phase so far, without what an open slot has run up since its last charge.

        Args:
            phase: A phase; one that is unknown has 0.
        """
        return self._by_phase.get(phase, 0.0)

    def is_reserved(self, slot: str) -> bool:
        """Whether a slot is open.

        Args:
            slot: Its name.
        """
        return slot in self._slots

    @_synchronized
    def reserve(self, slot: str, devices: float, phase: str) -> None:
        """Begins to charge a slot.

        Args:
            slot: A new name.
            devices: How many devices it reserves.
            phase: What they are charged to.
        """
        assert slot not in self._slots, f"slot {slot} is reserved already"
        self._slots[slot] = _OpenSlot(devices, phase, self.clock.now())
        self.heartbeat(force=True)

    @_synchronized
    def set_phase(self, slot: str, phase: str) -> None:
        """Charges a slot to another phase from now on.

        Args:
            slot: An open slot.
            phase: What its devices are charged to.
        """
        open_slot = self._slots[slot]
        if open_slot.phase == phase:
            return
        self._charge(open_slot)
        open_slot.phase = phase
        self.heartbeat()

    @_synchronized
    def release_devices(self, slot: str) -> None:
        """Frees the devices of a slot. The slot stays open, and is charged nothing more.

        Args:
            slot: An open slot.
        """
        self._charge(self._slots[slot])
        self._slots[slot].devices = 0.0
        self.heartbeat(force=True)

    @_synchronized
    def release(self, slot: str) -> None:
        """Ends a slot.

        Args:
            slot: An open slot.
        """
        self._charge(self._slots[slot])
        del self._slots[slot]
        self.heartbeat(force=True)

    @_synchronized
    def release_all(self) -> None:
        """Ends every slot."""
        for slot in list(self._slots):
            self.release(slot)

    def _charge(self, slot: _OpenSlot) -> None:
        now = self.clock.now()
        self._write(slot.phase, slot.devices * (now - slot.charged_until))
        slot.charged_until = now

    @_synchronized
    def heartbeat(self, *, force: bool = False) -> None:
        """Notes the running total, at most every ``HEARTBEAT_SECONDS``; call it often.

        Args:
            force: Whether to note it now.
        """
        now = self.clock.now()
        if not force and now - self._last_heartbeat < HEARTBEAT_SECONDS:
            return
        self._last_heartbeat = now
        if self._slots:
            spent_device_seconds = self.spent_device_seconds
            self._heartbeat_file.write(LedgerHeartbeat(spent_device_seconds=spent_device_seconds, devices=self.devices))
        else:
            self._heartbeat_file.delete()


class WorkerSlots:
    """The slots of a search's workers; made by ``BudgetAccount.worker_slots``.

    Attributes:
        ledger: Charges them.
        names: Their names, in order.
        devices_per_slot: What each reserves.
    """

    def __init__(self, ledger: Ledger, names: tuple[str, ...], devices_per_slot: float) -> None:
        self.ledger, self.names, self.devices_per_slot = ledger, names, devices_per_slot
        self._handed_back = False
        self._lock = threading.Lock()

    def hand_back(self) -> None:
        """Frees the devices of the workers, which are gone. From now on the driver's own slot is charged.

        The slots stay open, so that the end of their trainings can still be charged, with nothing. Calling it again does
        nothing, or, after a call that could not write, completes it.

        Raises:
            OSError: The ledger's file cannot be written.
        """
        with self._lock:
            if self._handed_back:
                return
            # At no moment is nothing reserved. A call that failed, as on a full disk, may have reserved it already.
            if not self.ledger.is_reserved(DRIVER_SLOT):
                self.ledger.reserve(DRIVER_SLOT, self.devices_per_slot, _WORKER_SHUTDOWN)
            for name in self.names:
                self.ledger.release_devices(name)
            self._handed_back = True


class BudgetAccount:
    """Spends a budget: the one owner of a run's ledger.

    Whatever is reserved is released when the account is closed. Only after a kill is it not; the next account that opens
    the ledger charges for that.

    Args:
        file: The ledger's file; what it holds counts as spent.
        budget_device_seconds: How much may be spent; may be infinite.
        devices_per_slot: Devices that the driver reserves, and each worker.
        clock: Measures the time that is charged.

    Attributes:
        ledger: What is spent, and on what.

    Raises:
        RunError: The file is no ledger of this version.

    Example:
        >>> import pathlib, tempfile
        >>> file = LedgerFile(pathlib.Path(tempfile.mkdtemp()) / LedgerCharge.FILE)
        >>> with BudgetAccount.open(file, budget_device_seconds=3600.0, devices_per_slot=2.0) as account:
        ...     with account.worker_slots(4) as slots:
        ...         reserved = account.ledger.devices
        ...     with account.phase("export"):
        ...         afterwards = account.ledger.devices
        >>> reserved, afterwards, account.ledger.devices
        (8.0, 2.0, 0)
    """

    def __init__(
        self, file: LedgerFile, *, budget_device_seconds: float, devices_per_slot: float, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self.ledger = Ledger(file, budget_device_seconds=budget_device_seconds, clock=clock)
        self._devices_per_slot = devices_per_slot

    @classmethod
    @contextlib.contextmanager
    def open(
        cls, file: LedgerFile, *, budget_device_seconds: float, devices_per_slot: float, clock: Clock = SYSTEM_CLOCK
    ) -> Iterator[Self]:
        """Opens an account for a block; see the class."""
        account = cls(file, budget_device_seconds=budget_device_seconds, devices_per_slot=devices_per_slot, clock=clock)
        try:
            yield account
        finally:
            account.close()

    def close(self) -> None:
        """Releases whatever is reserved."""
        self.ledger.release_all()

    @property
    def seconds_left(self) -> float:
        """Wall seconds until the budget is spent by one slot; negative when it is spent."""
        return self.ledger.remaining_device_seconds / self._devices_per_slot

    def reserve_workers(self, count: int) -> WorkerSlots:
        """Reserves the slots of workers that are about to start, until they are handed back or the account is closed.

        Args:
            count: How many workers.
        """
        names = tuple(f"worker {index}" for index in range(count))
        for name in names:
            self.ledger.reserve(name, self._devices_per_slot, _START_UP)
        return WorkerSlots(self.ledger, names, self._devices_per_slot)

    @contextlib.contextmanager
    def worker_slots(self, count: int) -> Iterator[WorkerSlots]:
        """Reserves the slots of workers for a block, and hands them back at its end.

        Args:
            count: How many workers.
        """
        slots = self.reserve_workers(count)
        try:
            yield slots
        finally:
            slots.hand_back()

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Charges the driver's slot to a phase for a block, and after it until the next phase or the account's end.

        Args:
            name: The phase.
        """
        if self.ledger.is_reserved(DRIVER_SLOT):
            self.ledger.set_phase(DRIVER_SLOT, name)
        else:
            self.ledger.reserve(DRIVER_SLOT, self._devices_per_slot, name)
        yield
