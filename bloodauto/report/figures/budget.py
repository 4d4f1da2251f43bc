"""Figure: what the budget was spent on."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from bloodauto.report.figures.style import ACCENT, MUTED, STATE_COLOURS, Figure, NoFigure, base_figure, escape_plotly
from bloodauto.report.formatting import duration, percent, time_unit
from bloodauto.report.run_info import STATE_LABELS, TRIAL_STATES, RunInfo

_UNSPENT = "unspent"
_TRIAL_PHASES = {f"trials: {STATE_LABELS[state]}": state for state in TRIAL_STATES}
_ORDER = ("start-up", *_TRIAL_PHASES, "refit", "ensemble", "export", "idle")


@dataclass(frozen=True)
class BudgetInfo:
    """Device-seconds by phase.

    Attributes:
        rows: (phase, device-seconds) in the order of a run; unspent last, where the budget is known.
        spent_device_seconds: total of the ledger.
        budget_device_seconds: None where unknown.
        device: ``cpu``, ``gpu`` or ``device``.
    """

    rows: tuple[tuple[str, float], ...]
    spent_device_seconds: float
    budget_device_seconds: float | None
    device: str


def budget_info(run: RunInfo) -> BudgetInfo | NoFigure:
    """Sums the ledger by phase: trials by their state, all refits as one, other phases by name."""
    if not run.ledger:
        return NoFigure("The ledger is empty: nothing has been charged yet.")
    states = {f"trial {trial.number}": STATE_LABELS[trial.state] for trial in run.trials}
    totals: defaultdict[str, float] = defaultdict(float)
    for charge in run.ledger:
        if charge.phase.startswith("trial "):
            phase = f"trials: {states.get(charge.phase, STATE_LABELS['running'])}"
        else:
            phase = "refit" if charge.phase.startswith("refit") else charge.phase
        totals[phase] += charge.device_seconds
    rank = {phase: index for index, phase in enumerate(_ORDER)}
    rows = sorted(totals.items(), key=lambda row: rank.get(row[0], len(rank)))
    spent = run.ledger[-1].spent_device_seconds
    if run.budget_device_seconds is not None:
        rows.append((_UNSPENT, max(run.budget_device_seconds - spent, 0.0)))
    return BudgetInfo(tuple(rows), spent, run.budget_device_seconds, run.device)


def draw_budget(info: BudgetInfo) -> Figure:
    """One bar for each phase, labelled with time and fraction of the whole."""
    total = info.spent_device_seconds if info.budget_device_seconds is None else info.budget_device_seconds
    total = total if total > 0 else 1.0
    unit = time_unit(max(seconds for _, seconds in info.rows), info.device)
    figure = base_figure(90 + 34 * len(info.rows), x_title=unit.label)
    figure.add_bar(
        x=[seconds / unit.device_seconds for _, seconds in info.rows],
        y=[escape_plotly(phase) for phase, _ in info.rows],
        orientation="h",
        marker={"color": [_colour(phase) for phase, _ in info.rows], "cornerradius": 3},
        text=[f" {duration(seconds, '')} · {percent(seconds / total, 0)}" for _, seconds in info.rows],
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


def _colour(phase: str) -> str:
    if phase in _TRIAL_PHASES:
        return STATE_COLOURS[_TRIAL_PHASES[phase]]
    return "#d6dae1" if phase == _UNSPENT else MUTED if phase in ("start-up", "idle") else ACCENT
