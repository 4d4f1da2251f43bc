"""The ledger: every device-second that was reserved, on disk, across restarts."""

from __future__ import annotations

import functools
import json
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from bloodauto.errors import RunError
from bloodauto.run.files import append_line, read_json, write_json, write_text

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
        path: the ledger's file; what it holds already counts as spent.
        budget_device_seconds: how much may be spent.
        now: the clock, in seconds; it only needs to run forward.
        wall_clock: Unix time, for the file.

    Raises:
        RunError: the file is no ledger.
    """

    def __init__(
        self,
        path: Path,
        *,
        budget_device_seconds: float,
        now: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self.budget_device_seconds = budget_device_seconds
        self._path, self._now, self._wall_clock = path, now, wall_clock
        self._lock = threading.RLock()
        self._slots: dict[str, _Slot] = {}
        self._last_heartbeat = float("-inf")
        self._by_phase = read_ledger(path)
        _repair_last_line(path)
        self._charged = sum(self._by_phase.values())
        self._charge_interrupted()

    @property
    def _heartbeat_path(self) -> Path:
        return self._path.with_suffix(".heartbeat.json")

    def _charge_interrupted(self) -> None:
        if not self._heartbeat_path.is_file():
            return
        heartbeat = read_json(self._heartbeat_path)
        try:
            noted, devices = float(heartbeat["spent_device_seconds"]), float(heartbeat["devices"])
        except (KeyError, TypeError, ValueError):
            raise RunError(
                f"{self._heartbeat_path}: expected spent_device_seconds and devices, got {str(heartbeat)[:80]}. "
                "Delete the file; up to a few seconds of the budget are then not accounted for."
            ) from None
        missing = noted + devices * HEARTBEAT_SECONDS - self._charged
        if missing > 0:
            self._write("interrupted", missing)
        self._heartbeat_path.unlink()

    def _write(self, phase: str, device_seconds: float) -> None:
        # What is counted is what is written, so that a resume counts the same.
        device_seconds = round(device_seconds, 6)
        self._charged += device_seconds
        self._by_phase[phase] = self.charged_for(phase) + device_seconds
        line = {
            "at_unix": self._wall_clock(),
            "phase": phase,
            "device_seconds": device_seconds,
            "spent_device_seconds": round(self._charged, 6),
        }
        append_line(self._path, json.dumps(line))

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
            spent = {"spent_device_seconds": self.spent_device_seconds, "devices": self.devices}
            write_json(self._heartbeat_path, spent)
        else:
            self._heartbeat_path.unlink(missing_ok=True)


def read_ledger(path: Path) -> dict[str, float]:
    """Device-seconds by phase that a ledger's file accounts for; empty when there is none.

    A last line torn by a crash is passed over: the heartbeat covers what it would have said.

    Raises:
        RunError: a line that is none of a ledger's.
    """
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    charges: dict[str, float] = {}
    for number, line in enumerate(lines, start=1):
        charge = _parse_charge(line)
        if charge is not None:
            phase, device_seconds = charge
            charges[phase] = charges.get(phase, 0.0) + device_seconds
        elif number < len(lines):
            raise RunError(
                f"{path}:{number}: expected a ledger's line with phase and device_seconds, got {line[:80]!r}. "
                "Restore the file or start a new run."
            )
    return charges


def _parse_charge(line: str) -> tuple[str, float] | None:
    """Purpose and device-seconds of a line; None when it is none of ours."""
    try:
        entry: Any = json.loads(line)
        phase, device_seconds = entry["phase"], float(entry["device_seconds"])
    except (ValueError, KeyError, TypeError):
        return None
    valid = isinstance(phase, str) and math.isfinite(device_seconds) and device_seconds >= 0
    return (phase, device_seconds) if valid else None


def _repair_last_line(path: Path) -> None:
    """Takes a torn last line away, or the next charge would be glued to it and both be lost."""
    if not path.is_file():
        return
    text = path.read_text(encoding="utf-8", errors="replace")
    whole, _, last = text.rpartition("\n")
    if _parse_charge(last) is not None:
        write_text(path, text + "\n")
    elif last:
        write_text(path, whole + "\n" if whole else "")
