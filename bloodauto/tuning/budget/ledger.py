"""The ledger: every device-second that was reserved, on disk, across restarts."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Concatenate, ParamSpec, TypeVar

from bloodauto.run.artifacts import LedgerCharge, LedgerFile, LedgerHeartbeat
from bloodauto.run.training_directory import ArtifactFile

#: How often the running total is noted. After a kill, up to one such interval is charged on top of what was noted.
HEARTBEAT_SECONDS = 2.0


P = ParamSpec("P")
R = TypeVar("R")


@dataclass
class _Slot:
    devices: float
    phase: str
    since: float


def _synchronized(method: Callable[Concatenate[Ledger, P], R]) -> Callable[Concatenate[Ledger, P], R]:
    """One thread at a time: the one that watches over the budget's end charges slots, too."""

    @functools.wraps(method)
    def locked(ledger: Ledger, *args: P.args, **kwargs: P.kwargs) -> R:
        with ledger._lock:
            return method(ledger, *args, **kwargs)

    return locked


class Ledger:
    """Counts devices reserved x seconds reserved, by phase.

    A *slot* is a stretch of devices that is reserved as a whole, such as one worker's. From ``reserve`` to ``release`` every
    second of it is charged to some purpose, ``idle`` included, so that nothing is ever free of charge. Each line of the
    file is one charge; a heartbeat beside it notes what the open slots have run up since, so that a killed search is
    charged for what it used, and not for the time until somebody resumed it.

    Args:
        file: the ledger's file; what it holds already counts as spent.
        budget_device_seconds: how much may be spent.
        now: the clock, in seconds; it only needs to run forward.
        wall_clock: Unix time, for the file.

    Raises:
        RunError: the file is no ledger.
    """

    def __init__(
        self,
        file: LedgerFile,
        *,
        budget_device_seconds: float,
        now: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self.budget_device_seconds = budget_device_seconds
        self._file, self._now, self._wall_clock = file, now, wall_clock
        self._lock = threading.RLock()
        self._slots: dict[str, _Slot] = {}
        self._last_heartbeat = float("-inf")
        self._by_phase = file.device_seconds_by_phase()
        file.repair_last_line()
        self._charged = sum(self._by_phase.values())
        self._charge_interrupted()

    @property
    def _heartbeat(self) -> ArtifactFile[LedgerHeartbeat]:
        return ArtifactFile(self._file.heartbeat_path, LedgerHeartbeat)

    def _charge_interrupted(self) -> None:
        heartbeat = self._heartbeat.read_if_exists()
        if heartbeat is None:
            return
        missing = heartbeat.spent_device_seconds + heartbeat.devices * HEARTBEAT_SECONDS - self._charged
        if missing > 0:
            self._write("interrupted", missing)
        self._heartbeat.delete()

    def _write(self, phase: str, device_seconds: float) -> None:
        # What is counted is what is written, so that a resume counts the same.
        device_seconds = round(device_seconds, 6)
        self._charged += device_seconds
        self._by_phase[phase] = self.charged_for(phase) + device_seconds
        charge = LedgerCharge(
            at_unix=self._wall_clock(),
            phase=phase,
            device_seconds=device_seconds,
            spent_device_seconds=round(self._charged, 6),
        )
        self._file.append(charge)

    @property
    @_synchronized
    def devices(self) -> float:
        """Devices reserved at present."""
        return sum(slot.devices for slot in self._slots.values())

    @property
    @_synchronized
    def spent_device_seconds(self) -> float:
        """All charges, and what the open slots have run up."""
        now = self._now()
        return self._charged + sum(slot.devices * (now - slot.since) for slot in self._slots.values())

    @property
    def remaining_device_seconds(self) -> float:
        return self.budget_device_seconds - self.spent_device_seconds

    def charged_for(self, phase: str) -> float:
        """Device-seconds charged to a purpose so far; what an open slot has run up since is not in it."""
        return self._by_phase.get(phase, 0.0)

    def is_reserved(self, slot: str) -> bool:
        """Whether a slot is open."""
        return slot in self._slots

    @_synchronized
    def reserve(self, slot: str, devices: float, phase: str) -> None:
        """Starts charging a slot."""
        assert slot not in self._slots, f"lane {slot} is reserved already"
        self._slots[slot] = _Slot(devices, phase, self._now())
        self.heartbeat(force=True)

    @_synchronized
    def set_phase(self, slot: str, phase: str) -> None:
        """From now on the slot is charged to another purpose."""
        open_slot = self._slots[slot]
        if open_slot.phase == phase:
            return
        self._charge_slot(open_slot)
        open_slot.phase = phase
        self.heartbeat()

    @_synchronized
    def release_devices(self, slot: str) -> None:
        """The slot's devices are free again; the slot stays, and is charged nothing more."""
        self._charge_slot(self._slots[slot])
        self._slots[slot].devices = 0.0
        self.heartbeat(force=True)

    @_synchronized
    def release(self, slot: str) -> None:
        """Stops charging a slot."""
        self._charge_slot(self._slots.pop(slot))
        self.heartbeat(force=True)

    def _charge_slot(self, slot: _Slot) -> None:
        now = self._now()
        if slot.devices > 0:
            self._write(slot.phase, slot.devices * (now - slot.since))
        slot.since = now

    @_synchronized
    def heartbeat(self, *, force: bool = False) -> None:
        """Notes the running total, at most every ``HEARTBEAT_SECONDS``; call it often."""
        now = self._now()
        if not force and now - self._last_heartbeat < HEARTBEAT_SECONDS:
            return
        self._last_heartbeat = now
        if self._slots:
            self._heartbeat.write(LedgerHeartbeat(spent_device_seconds=self.spent_device_seconds, devices=self.devices))
        else:
            self._heartbeat.delete()
