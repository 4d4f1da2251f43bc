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
class _Lane:
    devices: float
    purpose: str
    since: float


def _alone(method: Callable[Concatenate[Ledger, P], R]) -> Callable[Concatenate[Ledger, P], R]:
    """One thread at a time: the one that watches over the budget's end charges lanes, too."""

    @functools.wraps(method)
    def locked(ledger: Ledger, *args: P.args, **kwargs: P.kwargs) -> R:
        with ledger._lock:
            return method(ledger, *args, **kwargs)

    return locked


class Ledger:
    """Counts devices reserved x seconds reserved, by purpose.

    A *lane* is a stretch of devices that is reserved as a whole, such as one worker's. From ``reserve`` to ``release`` every
    second of it is charged to some purpose, ``idle`` included, so that nothing is ever free of charge. Each line of the
    file is one charge; a heartbeat beside it notes what the open lanes have run up since, so that a killed search is
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
        self._lanes: dict[str, _Lane] = {}
        self._last_beat = float("-inf")
        self._by_purpose = read_ledger(path)
        _mend_last_line(path)
        self._charged = sum(self._by_purpose.values())
        self._charge_interrupted()

    @property
    def _heartbeat_path(self) -> Path:
        return self._path.with_suffix(".heartbeat.json")

    def _charge_interrupted(self) -> None:
        if not self._heartbeat_path.is_file():
            return
        beat = read_json(self._heartbeat_path)
        try:
            noted, devices = float(beat["spent_device_seconds"]), float(beat["devices"])
        except (KeyError, TypeError, ValueError):
            raise RunError(
                f"{self._heartbeat_path}: expected spent_device_seconds and devices, got {str(beat)[:80]}. "
                "Delete the file; up to a few seconds of the budget are then not accounted for."
            ) from None
        missing = noted + devices * HEARTBEAT_SECONDS - self._charged
        if missing > 0:
            self._write("interrupted", missing)
        self._heartbeat_path.unlink()

    def _write(self, purpose: str, device_seconds: float) -> None:
        # What is counted is what is written, so that a resume counts the same.
        device_seconds = round(device_seconds, 6)
        self._charged += device_seconds
        self._by_purpose[purpose] = self.charged_for(purpose) + device_seconds
        line = {
            "at_unix": self._wall_clock(),
            "purpose": purpose,
            "device_seconds": device_seconds,
            "spent_device_seconds": round(self._charged, 6),
        }
        append_line(self._path, json.dumps(line))

    @property
    @_alone
    def devices(self) -> float:
        """Devices reserved at present."""
        return sum(lane.devices for lane in self._lanes.values())

    @property
    @_alone
    def spent_device_seconds(self) -> float:
        """All charges, and what the open lanes have run up."""
        now = self._now()
        return self._charged + sum(lane.devices * (now - lane.since) for lane in self._lanes.values())

    @property
    def left_device_seconds(self) -> float:
        return self.budget_device_seconds - self.spent_device_seconds

    def charged_for(self, purpose: str) -> float:
        """Device-seconds charged to a purpose so far; what an open lane has run up since is not in it."""
        return self._by_purpose.get(purpose, 0.0)

    def has(self, lane: str) -> bool:
        """Whether a lane is open."""
        return lane in self._lanes

    @_alone
    def reserve(self, lane: str, devices: float, purpose: str) -> None:
        """Starts charging a lane."""
        assert lane not in self._lanes, f"lane {lane} is reserved already"
        self._lanes[lane] = _Lane(devices, purpose, self._now())
        self.beat(force=True)

    @_alone
    def enter(self, lane: str, purpose: str) -> None:
        """From now on the lane is charged to another purpose."""
        open_lane = self._lanes[lane]
        if open_lane.purpose == purpose:
            return
        self._settle(open_lane)
        open_lane.purpose = purpose
        self.beat()

    @_alone
    def hand_back(self, lane: str) -> None:
        """The lane's devices are free again; the lane stays, and is charged nothing more."""
        self._settle(self._lanes[lane])
        self._lanes[lane].devices = 0.0
        self.beat(force=True)

    @_alone
    def release(self, lane: str) -> None:
        """Stops charging a lane."""
        self._settle(self._lanes.pop(lane))
        self.beat(force=True)

    def _settle(self, lane: _Lane) -> None:
        now = self._now()
        if lane.devices > 0:
            self._write(lane.purpose, lane.devices * (now - lane.since))
        lane.since = now

    @_alone
    def beat(self, *, force: bool = False) -> None:
        """Notes the running total, at most every ``HEARTBEAT_SECONDS``; call it often."""
        now = self._now()
        if not force and now - self._last_beat < HEARTBEAT_SECONDS:
            return
        self._last_beat = now
        if self._lanes:
            spent = {"spent_device_seconds": self.spent_device_seconds, "devices": self.devices}
            write_json(self._heartbeat_path, spent)
        else:
            self._heartbeat_path.unlink(missing_ok=True)


def read_ledger(path: Path) -> dict[str, float]:
    """Device-seconds by purpose that a ledger's file accounts for; empty when there is none.

    A last line torn by a crash is passed over: the heartbeat covers what it would have said.

    Raises:
        RunError: a line that is none of a ledger's.
    """
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    charges: dict[str, float] = {}
    for number, line in enumerate(lines, start=1):
        charge = _charge(line)
        if charge is not None:
            purpose, device_seconds = charge
            charges[purpose] = charges.get(purpose, 0.0) + device_seconds
        elif number < len(lines):
            raise RunError(
                f"{path}:{number}: expected a ledger's line with purpose and device_seconds, got {line[:80]!r}. "
                "Restore the file or start a new run."
            )
    return charges


def _charge(line: str) -> tuple[str, float] | None:
    """Purpose and device-seconds of a line; None when it is none of ours."""
    try:
        entry: Any = json.loads(line)
        purpose, device_seconds = entry["purpose"], float(entry["device_seconds"])
    except (ValueError, KeyError, TypeError):
        return None
    valid = isinstance(purpose, str) and math.isfinite(device_seconds) and device_seconds >= 0
    return (purpose, device_seconds) if valid else None


def _mend_last_line(path: Path) -> None:
    """Takes a torn last line away, or the next charge would be glued to it and both be lost."""
    if not path.is_file():
        return
    text = path.read_text(encoding="utf-8", errors="replace")
    whole, _, last = text.rpartition("\n")
    if _charge(last) is not None:
        write_text(path, text + "\n")
    elif last:
        write_text(path, whole + "\n" if whole else "")
