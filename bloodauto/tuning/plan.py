"""The plan of a budget: what it buys, with reasons; values that the scheduler follows, a table shows and a file keeps."""

from __future__ import annotations

from dataclasses import dataclass

from bloodauto.config.recipe import Recipe
from bloodauto.run.artifacts import BudgetPlanFile, BudgetPlanRow
from bloodauto.tuning.budget.allocation import BudgetLimits


@dataclass(frozen=True)
class PlannedInitial:
    """An initial configuration that is to be tried.

    Attributes:
        name: Its name.
        recipe: What it trains.
        seconds: Wall seconds that it may take on one worker, start and final evaluation included; None: nothing was timed
            yet, it may take what the search has.
        reason: Why so long.
        is_shortened: Whether its schedule is compressed into less time than it needs.
    """

    name: str
    recipe: Recipe
    seconds: float | None
    reason: str
    is_shortened: bool = False


@dataclass(frozen=True)
class PlannedSuggestions:
    """What suggestions get.

    Attributes:
        seconds: Wall seconds that one may take on one worker, start and final evaluation included.
        count: How many there is time for.
        reason: Why so long, and what they are drawn among, or why there are none.
        is_worthwhile: Whether any is to be made.
    """

    seconds: float
    count: int
    reason: str
    is_worthwhile: bool = True


@dataclass(frozen=True)
class BudgetPlan:
    """What a budget buys from now on.

    Attributes:
        limits: Where search, refits and budget end.
        initial: The initial configurations that are still to be tried, in order.
        excluded: Name and reason of those for which there is no time now.
        suggestions: How many and how long.
        num_refits: How many refits are expected.
        refit_seconds: Wall seconds of each on its worker.
        refits_reason: Why so many and so long.
    """

    limits: BudgetLimits
    initial: tuple[PlannedInitial, ...]
    excluded: tuple[tuple[str, str], ...]
    suggestions: PlannedSuggestions
    num_refits: int
    refit_seconds: float
    refits_reason: str

    def to_artifact(self) -> BudgetPlanFile:
        """The plan as a file of the run."""
        rows = [
            BudgetPlanRow(what=initial.name, count=1, seconds_each=initial.seconds, reason=initial.reason)
            for initial in self.initial
        ]
        rows += [BudgetPlanRow(what=name, count=0, seconds_each=None, reason=reason) for name, reason in self.excluded]
        rows += [
            BudgetPlanRow(
                what="suggestions",
                count=self.suggestions.count,
                seconds_each=self.suggestions.seconds if self.suggestions.is_worthwhile else None,
                reason=self.suggestions.reason,
            ),
            BudgetPlanRow(
                what="refits", count=self.num_refits, seconds_each=self.refit_seconds, reason=self.refits_reason
            ),
        ]
        return BudgetPlanFile(
            budget_device_seconds=self.limits.budget,
            search_ends_device_seconds=self.limits.search,
            refits_end_device_seconds=self.limits.refit,
            rows=tuple(rows),
        )

    def table(self) -> list[str]:
        """The plan as lines of text: what, how many, seconds of each on a worker, why."""
        artifact = self.to_artifact()
        cells = [("", "trainings", "seconds each", "")]
        for row in artifact.rows:
            seconds = "" if row.seconds_each is None else f"{row.seconds_each:.0f}"
            cells.append((row.what, str(row.count), seconds, row.reason))
        limits = self.limits
        cells.append(
            ("finalization", "", "", f"{limits.finalization:.0f} of {limits.budget:.0f} device-seconds are kept")
        )
        widths = [max(len(row[column]) for row in cells) for column in range(3)]
        return [
            f"{what:<{widths[0]}}  {count:>{widths[1]}}  {seconds:>{widths[2]}}  {reason}".rstrip()
            for what, count, seconds, reason in cells
        ]
