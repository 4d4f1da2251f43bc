"""Where the budget went."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import plotly.graph_objects as go

from bloodauto.report.figures.style import ACCENT, MUTED, OUTCOME_COLOURS, Absent, base_figure, plain
from bloodauto.report.info import OUTCOME_WORDS, OUTCOMES, RunInfo
from bloodauto.report.labels import duration, percent, time_unit

_UNSPENT = "unspent"
_TRIAL_PURPOSES = {f"trials: {OUTCOME_WORDS[outcome]}": outcome for outcome in OUTCOMES}
_ORDER = ("start-up", *_TRIAL_PURPOSES, "refit", "ensemble", "export", "idle")


@dataclass(frozen=True)
class BudgetInfo:
    """``rows``: (purpose, device-seconds), in the order of a run; unspent last, when the budget is known."""

    rows: tuple[tuple[str, float], ...]
    spent_device_seconds: float
    given_device_seconds: float | None
    device: str


def budget_info(run: RunInfo) -> BudgetInfo | Absent:
    """The ledger by purpose: trials by their outcome, all refits as one; what it does not name is kept by name."""
    if not run.ledger:
        return Absent("The ledger is empty: nothing has been charged yet.")
    outcomes = {f"trial {trial.number}": OUTCOME_WORDS[trial.outcome] for trial in run.trials}
    totals: defaultdict[str, float] = defaultdict(float)
    for entry in run.ledger:
        if entry.purpose.startswith("trial "):
            purpose = f"trials: {outcomes.get(entry.purpose, OUTCOME_WORDS['running'])}"
        else:
            purpose = "refit" if entry.purpose.startswith("refit") else entry.purpose
        totals[purpose] += entry.device_seconds
    rank = {purpose: index for index, purpose in enumerate(_ORDER)}
    rows = sorted(totals.items(), key=lambda row: rank.get(row[0], len(rank)))
    spent = run.ledger[-1].spent_device_seconds
    if run.budget_device_seconds is not None:
        rows.append((_UNSPENT, max(run.budget_device_seconds - spent, 0.0)))
    return BudgetInfo(tuple(rows), spent, run.budget_device_seconds, run.device)


def draw_budget(info: BudgetInfo) -> go.Figure:
    """One bar a purpose, labelled with time and share of the whole."""
    whole = info.spent_device_seconds if info.given_device_seconds is None else info.given_device_seconds
    whole = whole if whole > 0 else 1.0
    unit = time_unit(max(seconds for _, seconds in info.rows), info.device)
    figure = base_figure(90 + 34 * len(info.rows), x_title=unit.label)
    figure.add_bar(
        x=[seconds / unit.device_seconds for _, seconds in info.rows],
        y=[plain(purpose) for purpose, _ in info.rows],
        orientation="h",
        marker={"color": [_colour(purpose) for purpose, _ in info.rows], "cornerradius": 3},
        text=[f" {duration(seconds, '')} · {percent(seconds / whole, 0)}" for _, seconds in info.rows],
        textposition="outside",
        cliponaxis=False,
        hovertemplate="%{y}: %{text}<extra></extra>",
    )
    # Room for the labels, which stand outside of the bars.
    longest = max(seconds for _, seconds in info.rows) / unit.device_seconds
    figure.update_xaxes(range=[0, 1.9 * longest if longest > 0 else 1])
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_layout(showlegend=False, margin_t=12)
    return figure


def _colour(purpose: str) -> str:
    if purpose in _TRIAL_PURPOSES:
        return OUTCOME_COLOURS[_TRIAL_PURPOSES[purpose]]
    return "#d6dae1" if purpose == _UNSPENT else MUTED if purpose in ("start-up", "idle") else ACCENT
