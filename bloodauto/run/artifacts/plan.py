"""The file of a search's plan: what the rest of its budget buys, and why."""

from __future__ import annotations

from pydantic import Field

from bloodauto.run.artifacts.base import Artifact, Count, Record, Seconds


class BudgetPlanRow(Record):
    """One kind of training of a plan.

    Attributes:
        what: an initial configuration by name, ``suggestions`` or ``refits``.
        count: how many trainings; 0 for what is left out.
        seconds_each: wall seconds of each on its worker; None where nothing is known yet, or nothing is trained.
        reason: why so many and so long, or why it is left out.
    """

    what: str
    count: Count
    seconds_each: Seconds | None
    reason: str


class BudgetPlanFile(Artifact):
    """``plan.json``: what a search does with the rest of its budget; rewritten whenever the plan changes.

    Attributes:
        budget_device_seconds: the whole budget.
        search_ends_device_seconds: how much is spent when the search ends and refits begin.
        refits_end_device_seconds: how much is spent when all trainings are over.
        rows: what is still to be trained.
    """

    FILE = "plan.json"

    budget_device_seconds: Seconds
    search_ends_device_seconds: Seconds
    refits_end_device_seconds: Seconds
    rows: tuple[BudgetPlanRow, ...] = Field(default=())
