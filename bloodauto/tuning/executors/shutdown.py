"""The shutdown of the workers: they are gone when the budget says so, however busy the driver is."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

from bloodauto.errors import BloodautoError
from bloodauto.tuning.budget.ledger import WorkerSlots

_POLL_SECONDS = 0.1
#: What drives the workers learns of the shutdown first, so that it does not replace a worker that is killed.
_GRACE_SECONDS = 0.3
#: The same where all workers are lost.
_LOST_GRACE_SECONDS = 3.0
#: How long the main thread may then take before it is given up.
_GIVE_UP_SECONDS = 15.0


def _do_nothing() -> None:
    """For workers that have nothing to save, and that are not given up."""


def _never() -> bool:
    """For workers that cannot be lost together."""
    return False


class WorkerShutdown(threading.Thread):
    """Kills all workers on request, or when the ledger reaches a limit, and hands their slots back.

    Workers that appear afterwards are killed as well, until ``finish``.

    Args:
        slots: The slots of the workers.
        kill_workers: Kills all workers and returns when they are gone. It is called again and again.
        save: Lets the workers save what they train, before they are killed for the first time; returns when they have, or
            after a few seconds. It is called on a request alone: at the limit nothing may be spent on it.
        are_lost: Whether what drives the workers is gone, so that nothing can run any more; called several times a second.
        give_up: Called when that is so and nobody has called ``finish`` for a while: the main thread waits for what is gone.

    Attributes:
        requested: Set when the workers have to go; by anyone, or by the thread itself.
        lost: Set when it was requested because ``are_lost`` said so.
        limit_device_seconds: How much may be spent before that. The executor keeps it up to date.
    """

    def __init__(
        self,
        slots: WorkerSlots,
        kill_workers: Callable[[], None],
        save: Callable[[], None] = _do_nothing,
        are_lost: Callable[[], bool] = _never,
        give_up: Callable[[], None] = _do_nothing,
    ) -> None:
        super().__init__(name="worker shutdown", daemon=True)
        self._slots, self._kill_workers, self._save = slots, kill_workers, save
        self._are_lost, self._give_up = are_lost, give_up
        self._error: Exception | None = None
        self._finished = threading.Event()
        self.requested, self.lost = threading.Event(), threading.Event()
        self.limit_device_seconds = math.inf

    def run(self) -> None:
        """The thread: waits for a request or the limit, then kills workers until ``finish``."""
        is_at_limit = False
        while not self.requested.wait(_POLL_SECONDS):
            if self._slots.ledger.spent_device_seconds >= self.limit_device_seconds:
                is_at_limit = True
                self.requested.set()
            elif self._are_lost():
                self.lost.set()
                self.requested.set()
        if not is_at_limit:
            self._save()
        # A driver that sees a worker die would ask what is gone for another one.
        self._finished.wait(_LOST_GRACE_SECONDS if self.lost.is_set() else _GRACE_SECONDS)
        given_up_at = self._slots.ledger.clock.now() + _GIVE_UP_SECONDS
        while True:
            is_last_round = self._finished.is_set()
            self._kill_workers()
            self._hand_back()
            if is_last_round:
                return
            self._finished.wait(_POLL_SECONDS)
            if self.lost.is_set() and self._slots.ledger.clock.now() >= given_up_at:
                self._give_up()

    def _hand_back(self) -> None:
        """Hands the slots back; what hinders it, such as a full disk, is raised by ``finish`` where somebody reports it."""
        try:
            self._slots.hand_back()
            self._error = None
        except (OSError, BloodautoError) as error:
            self._error = error

    def finish(self) -> None:
        """Requests the shutdown, and returns when the workers are gone and their slots handed back.

        Raises:
            OSError: The slots cannot be handed back, since the ledger's file cannot be written.
            BloodautoError: The ledger's file is damaged.
        """
        self._finished.set()
        self.requested.set()
        self.join()
        if self._error is not None:
            raise self._error
