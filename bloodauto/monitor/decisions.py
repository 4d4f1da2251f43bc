"""What a search decided and why, in sentences, from what the study keeps with its trials."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bloodauto.monitor.status import Decision
from bloodauto.printable import printable
from bloodauto.report.formatting import training_name
from bloodauto.run.artifacts import LedgerCharge
from bloodauto.run.study_attributes import SAMPLED, TrialAttributes

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

TrialState = Literal["complete", "pruned", "failed", "out_of_budget", "running"]
_MAX_MESSAGE_CHARACTERS = 160
#: What the short words of outcomes mean.
_REASONS = {
    "hard_deadline": "its time was over",
    "nan": "its loss or objective was no number",
    "rejected": "its recipe cannot be trained",
    "out_of_memory": "the machine's memory did not suffice",
    "worker_died": "its process died again and again",
    "watchdog": "it was silent for too long",
    "io": "its files could not be written or read",
    "crash": "an unexpected error; log.txt has it",
}


@dataclass(frozen=True)
class TrialRecord:
    """A trial as the study has it.

    Attributes:
        number: Its number.
        state: How it ended, or ``running``.
        objective: The primary objective of a complete trial; None for others.
        curve: (epoch, primary objective) by epoch, finite values only.
        attributes: What the search keeps with it.
        started_at: When it was added to the study, Unix time.
        ended_at: When it ended, Unix time.
    """

    number: int
    state: TrialState
    objective: float | None
    curve: tuple[tuple[int, float], ...]
    attributes: TrialAttributes
    started_at: float | None
    ended_at: float | None


def trial_record(trial: FrozenTrial) -> TrialRecord:
    """A trial of the study as a record.

    Args:
        trial: As Optuna has it; not one that waits.

    Raises:
        RunError: Its attributes are not those of this version.
    """
    attributes = TrialAttributes.read(trial)
    values = trial.intermediate_values if trial.intermediate_values else dict(attributes.curve)
    return TrialRecord(
        number=trial.number,
        state="running" if attributes.outcome is None else attributes.outcome,
        objective=trial.values[0] if trial.values else None,
        curve=tuple((epoch, value) for epoch, value in sorted(values.items()) if math.isfinite(value)),
        attributes=attributes,
        started_at=None if trial.datetime_start is None else trial.datetime_start.timestamp(),
        ended_at=None if trial.datetime_complete is None else trial.datetime_complete.timestamp(),
    )


def origin_text(attributes: TrialAttributes) -> str:
    """Where a trial's recipe comes from, in words.

    Example:
        >>> origin_text(TrialAttributes(origin="perturbed from trial 7"))
        'near trial 7, the best then'
    """
    if attributes.initial_name is not None:
        return f"initial configuration {printable(attributes.initial_name)}"
    if attributes.parent is not None:
        return f"near trial {attributes.parent}, the best then"
    if attributes.promoted_from is not None:
        return f"goes on with the weights of trial {attributes.promoted_from}, among the best quarter"
    return "suggested by TPE" if attributes.origin == SAMPLED else attributes.origin


def trial_decisions(records: Sequence[TrialRecord]) -> Iterator[Decision]:
    """Why each trial was started and ended.

    Args:
        records: All trials of a search.

    Yields:
        Decisions, in no particular order.
    """
    best = float("-inf")
    for record in sorted(records, key=lambda record: (record.ended_at is None, record.ended_at, record.number)):
        name, attributes = f"trial {record.number}", record.attributes
        if record.started_at is not None and attributes.started:
            text = f"{name} starts: {origin_text(attributes)} ({attributes.backbone})"
            yield Decision(record.started_at, "started", name, text)
        if record.ended_at is None or _never_began(record):
            continue
        is_best = record.state == "complete" and record.objective is not None and record.objective > best
        if is_best:
            assert record.objective is not None
            best = record.objective
        yield Decision(record.ended_at, "ended", name, f"{name} {end_text(record, is_best=is_best)}")


def refit_decision(charge: LedgerCharge) -> Decision:
    """The end of a refit, from the ledger's charge for it.

    Args:
        charge: Of the phase ``refit <name>``.
    """
    name = training_name(charge.phase.removeprefix("refit "))
    return Decision(charge.at_unix, "ended", name, f"{name} ended after {charge.device_seconds:.0f} device-seconds")


def _never_began(record: TrialRecord) -> bool:
    """Whether the trial was suggested and then not started; the count of trials tells of it."""
    return record.state == "out_of_budget" and not record.attributes.device_seconds


def end_text(record: TrialRecord, *, is_best: bool = False) -> str:
    """How a trial ended and why, without its name.

    Args:
        record: A trial that has ended.
        is_best: Whether it was the best when it ended.
    """
    attributes = record.attributes
    seconds = (
        "" if attributes.device_seconds is None else f" ({attributes.backbone}, {attributes.device_seconds:.0f} s)"
    )
    if record.state == "complete" and record.objective is not None:
        return f"complete: {record.objective:.4f}{', the best so far' if is_best else ''}{seconds}"
    last = f" at {record.curve[-1][1]:.4f}" if record.curve else ""
    reason = attributes.reason
    if record.state == "pruned":
        rung = reason.removeprefix("rung_")
        why = f"in the lower part after epoch {rung}" if rung != reason else reason
        return f"pruned{last}: {why}{seconds}"
    why = _REASONS.get(reason, reason.replace("_", " "))
    if record.state == "failed":
        message = printable(attributes.message.partition("\n")[0])[:_MAX_MESSAGE_CHARACTERS]
        return f"failed: {why}{f' ({message})' if message else ''}{seconds}"
    return f"stopped by the budget{last}: {why}{seconds}"
