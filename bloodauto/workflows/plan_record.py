"""The plan of a search's budget, in its file and on the screen, whenever it has changed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from bloodauto.clock import SYSTEM_CLOCK, Clock
from bloodauto.run.directory import RunDirectory
from bloodauto.tuning.plan import BudgetPlan
from bloodauto.tuning.scheduler import Scheduler

#: The plan is made anew after every epoch; so often its file is written at most.
_SECONDS_BETWEEN = 5.0
_log = logging.getLogger(__name__)


class PlanRecord:
    """Writes ``plan.json``, and shows the plan's table where it says something new.

    New is another choice of initial configurations, of networks, or of what is shortened; that a trial more or less is expected
    is not.

    Args:
        run: The run directory.
        show: Gets the lines of the table.
        clock: Tells the time.
    """

    def __init__(self, run: RunDirectory, show: Callable[[Sequence[str]], None], clock: Clock = SYSTEM_CLOCK) -> None:
        self._run, self._show, self._clock = run, show, clock
        self._written: BudgetPlan | None = None
        self._written_at = float("-inf")
        self._shown: tuple[object, ...] = ()

    def update(self, scheduler: Scheduler) -> None:
        """Takes over the scheduler's plan; call it often.

        Args:
            scheduler: Of the search.
        """
        now = self._clock.now()
        if now - self._written_at < _SECONDS_BETWEEN:
            return
        plan = scheduler.plan
        if plan is self._written:
            return
        self._run.budget_plan.write(plan.to_artifact())
        self._written, self._written_at = plan, now
        choices = (
            tuple((initial.name, initial.is_shortened, initial.seconds is None) for initial in plan.initial),
            tuple(name for name, _ in plan.excluded),
            plan.suggestions.reason if plan.suggestions.is_worthwhile else "",
        )
        if choices != self._shown:
            self._shown = choices
            lines = plan.table()
            _log.info("the plan:\n%s", "\n".join(lines))
            self._show(lines)
