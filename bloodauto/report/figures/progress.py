"""Figure: the best objective over the spent budget."""

from __future__ import annotations

from dataclasses import dataclass

from bloodauto.report.figures.style import (
    ACCENT,
    MUTED,
    STATE_COLOURS,
    STATE_SYMBOLS,
    Figure,
    NoFigure,
    base_figure,
    escape_plotly,
)
from bloodauto.report.formatting import duration, percent, time_unit
from bloodauto.report.run_info import STATE_LABELS, TRIAL_STATES, RunInfo, TrialState


@dataclass(frozen=True)
class ProgressPoint:
    """One trial.

    Attributes:
        trial: its number.
        spent_device_seconds: what had been spent when it ended.
        objective: the last one, 0-1; None where it had none.
        state: how it ended.
        label: origin and reason, for people.
    """

    trial: int
    spent_device_seconds: float
    objective: float | None
    state: TrialState
    label: str


@dataclass(frozen=True)
class ProgressInfo:
    """Progress of a search.

    Attributes:
        points: trials in the order in which they ended.
        incumbents: (spent device-seconds, objective) of each complete trial that was better than all before it.
        budget_device_seconds: None where unknown.
        device: ``cpu``, ``gpu`` or ``device``.
    """

    points: tuple[ProgressPoint, ...]
    incumbents: tuple[tuple[float, float], ...]
    budget_device_seconds: float | None
    device: str


def progress_info(run: RunInfo) -> ProgressInfo | NoFigure:
    """Trials in the order in which they ended, without those that never started.

    Without a ledger the trials' own costs are summed by number instead.
    """
    ended = {charge.phase: charge.spent_device_seconds for charge in run.ledger}
    latest = run.spent_device_seconds if run.spent_device_seconds is not None else 0.0
    points = []
    summed = 0.0
    for trial in run.trials:
        if trial.state == "waiting" or trial.never_started:
            continue
        summed += trial.device_seconds if trial.device_seconds is not None else 0.0
        spent = summed if not run.ledger else ended.get(f"trial {trial.number}", latest)
        label = " · ".join(part for part in (trial.attributes.origin, trial.attributes.reason) if part)
        points.append(ProgressPoint(trial.number, spent, trial.objective, trial.state, label))
    if not points:
        return NoFigure("No trial has been started yet.")
    points.sort(key=lambda point: (point.spent_device_seconds, point.trial))
    incumbents: list[tuple[float, float]] = []
    for point in points:
        if point.state != "complete" or point.objective is None:
            continue
        if not incumbents or point.objective > incumbents[-1][1]:
            incumbents.append((point.spent_device_seconds, point.objective))
    return ProgressInfo(tuple(points), tuple(incumbents), run.budget_device_seconds, run.device)


def draw_progress(info: ProgressInfo) -> Figure:
    """Trials by state, the incumbent as steps, the budget as a line. Trials without an objective are at the bottom."""
    last = max(point.spent_device_seconds for point in info.points)
    budget = info.budget_device_seconds
    unit = time_unit(last if budget is None else max(last, budget), info.device)
    figure = base_figure(420, x_title=f"spent ({unit.label})", y_title="objective on validation images")
    values = [point.objective for point in info.points if point.objective is not None]
    floor = min(values, default=0.0) - 0.04
    for state in TRIAL_STATES:
        chosen = [point for point in info.points if point.state == state]
        if not chosen:
            continue
        figure.add_scatter(
            x=[point.spent_device_seconds / unit.device_seconds for point in chosen],
            y=[floor if point.objective is None else point.objective for point in chosen],
            mode="markers",
            name=f"{STATE_LABELS[state]} ({len(chosen)})",
            marker={"color": STATE_COLOURS[state], "symbol": STATE_SYMBOLS[state], "size": 9, "opacity": 0.85},
            text=[
                f"<b>trial {point.trial}</b> {STATE_LABELS[state]}<br>{escape_plotly(point.label)}<br>"
                f"objective {percent(point.objective)} after {duration(point.spent_device_seconds, info.device)}"
                for point in chosen
            ],
            hovertemplate="%{text}<extra></extra>",
        )
    if info.incumbents:
        steps = (*info.incumbents, (last, info.incumbents[-1][1]))
        figure.add_scatter(
            x=[spent / unit.device_seconds for spent, _ in steps],
            y=[value for _, value in steps],
            mode="lines",
            name="incumbent",
            line={"color": ACCENT, "width": 2.5, "shape": "hv"},
            hovertemplate="incumbent %{y:.1%}<extra></extra>",
        )
    if budget is not None:
        figure.add_vline(
            x=budget / unit.device_seconds,
            line={"color": MUTED, "dash": "dash", "width": 1.5},
            annotation={"text": "budget", "xanchor": "right", "xshift": -4, "font": {"color": MUTED}},
        )
    if any(point.objective is None for point in info.points):
        figure.add_annotation(
            text="no objective",
            x=0,
            xref="paper",
            y=floor,
            xanchor="left",
            yshift=12,
            showarrow=False,
            font_color=MUTED,
        )
    figure.update_yaxes(tickformat=".1~%")
    figure.update_xaxes(rangemode="tozero")
    return figure
