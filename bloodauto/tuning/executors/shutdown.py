"""The end of the trainings: workers are gone when the budget says so, however busy the driver is."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence

from bloodauto.tuning.budget.ledger import Ledger

#: The lane of whoever concludes the search, from the moment the workers' devices are handed back.
DRIVER = "driver"
_LOOK_SECONDS = 0.1
#: What drives the workers hears of the end first, so that it does not take a killed worker for one to be replaced.
_NOTICE_SECONDS = 0.3


class Closing(threading.Thread):
    """Ends every worker when told to, or at a point of the ledger; then their lanes are charged no more, the driver's is.

    Until ``finish``, workers that appear afterwards are ended as well.

    Args:
        ledger: ``lanes`` are reserved in it.
        driver_devices: what the driver reserves from then on.
        end_workers: kills all workers and returns when they are gone; called again and again.

    Attributes:
        over: set when workers are to go; by anyone, or by the thread itself.
        at_device_seconds: how much may be spent before that; kept up to date by the executor.
    """

    def __init__(
        self, ledger: Ledger, lanes: Sequence[str], *, driver_devices: float, end_workers: Callable[[], None]
    ) -> None:
        super().__init__(name="closing", daemon=True)
        self._ledger, self._lanes, self._driver_devices = ledger, tuple(lanes), driver_devices
        self._end_workers = end_workers
        self._handed_back = False
        self._finished = threading.Event()
        self.over = threading.Event()
        self.at_device_seconds = math.inf

    def run(self) -> None:
        while not self.over.wait(_LOOK_SECONDS):
            if self._ledger.spent_device_seconds >= self.at_device_seconds:
                self.over.set()
        self._finished.wait(_NOTICE_SECONDS)
        while True:
            nothing_follows = self._finished.is_set()
            self._end_workers()
            self._hand_back()
            if nothing_follows:
                return
            self._finished.wait(_LOOK_SECONDS)

    def _hand_back(self) -> None:
        if self._handed_back:
            return
        self._handed_back = True
        # At no moment is nothing reserved.
        self._ledger.reserve(DRIVER, self._driver_devices, "end of the trainings")
        for lane in self._lanes:
            self._ledger.hand_back(lane)

    def finish(self) -> None:
        """Returns when the workers are gone and their devices handed back."""
        self._finished.set()
        self.over.set()
        self.join()
