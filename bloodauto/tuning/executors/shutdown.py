"""The end of the trainings: workers are gone when the budget says so, however busy the driver is."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence

from bloodauto.tuning.budget.ledger import Ledger

#: The slot of whoever concludes the search, from the moment the workers' devices are handed back.
DRIVER = "driver"
_POLL_SECONDS = 0.1
#: What drives the workers hears of the end first, so that it does not take a killed worker for one to be replaced.
_GRACE_SECONDS = 0.3


class WorkerShutdown(threading.Thread):
    """Ends every worker when told to, or at a point of the ledger; then their slots are charged no more, the driver's is.

    Until ``finish``, workers that appear afterwards are ended as well.

    Args:
        ledger: ``lanes`` are reserved in it.
        driver_devices: what the driver reserves from then on.
        kill_workers: kills all workers and returns when they are gone; called again and again.

    Attributes:
        over: set when workers are to go; by anyone, or by the thread itself.
        limit_device_seconds: how much may be spent before that; kept up to date by the executor.
    """

    def __init__(
        self, ledger: Ledger, slots: Sequence[str], *, driver_devices: float, kill_workers: Callable[[], None]
    ) -> None:
        super().__init__(name="worker shutdown", daemon=True)
        self._ledger, self._slots, self._driver_devices = ledger, tuple(slots), driver_devices
        self._kill_workers = kill_workers
        self._devices_released = False
        self._finished = threading.Event()
        self.requested = threading.Event()
        self.limit_device_seconds = math.inf

    def run(self) -> None:
        while not self.requested.wait(_POLL_SECONDS):
            if self._ledger.spent_device_seconds >= self.limit_device_seconds:
                self.requested.set()
        self._finished.wait(_GRACE_SECONDS)
        while True:
            nothing_follows = self._finished.is_set()
            self._kill_workers()
            self._release_devices()
            if nothing_follows:
                return
            self._finished.wait(_POLL_SECONDS)

    def _release_devices(self) -> None:
        if self._devices_released:
            return
        self._devices_released = True
        # At no moment is nothing reserved.
        self._ledger.reserve(DRIVER, self._driver_devices, "worker shutdown")
        for slot in self._slots:
            self._ledger.release_devices(slot)

    def finish(self) -> None:
        """Returns when the workers are gone and their devices handed back."""
        self._finished.set()
        self.requested.set()
        self.join()
