"""How the best objective rose while the budget was spent."""

from __future__ import annotations

from dataclasses import dataclass

import plotly.graph_objects as go

from bloodauto.report.figures.style import (
    ACCENT,
    MUTED,
    OUTCOME_COLOURS,
    OUTCOME_SYMBOLS,
    NoFigure,
    base_figure,
    escape_plotly,
)
from bloodauto.report.info import OUTCOME_LABELS, OUTCOMES, Outcome, RunInfo
from bloodauto.report.labels import duration, percent, time_unit


@dataclass(frozen=True)
class ProgressPoint:
    """One trial: what had been spent when it ended and the objective it ended with (``None``: it had none)."""

    trial: int
    spent_device_seconds: float
    objective: float | None
    outcome: Outcome
    label: str


@dataclass(frozen=True)
class ProgressInfo:
    """``best``: (spent device-seconds, best objective of a complete trial until then), one entry a rise."""

    points: tuple[ProgressPoint, ...]
    best: tuple[tuple[float, float], ...]
    budget_device_seconds: float | None
    device: str


def progress_info(run: RunInfo) -> ProgressInfo | NoFigure:
    """Trials in the order in which they ended, but those never started for want of budget.

    Without a ledger their own costs are summed by number instead.
    """
    ended = {entry.phase: entry.spent_device_seconds for entry in run.ledger}
    latest = run.spent_device_seconds if run.spent_device_seconds is not None else 0.0
    points = []
    summed = 0.0
    for trial in run.trials:
        if trial.outcome == "waiting" or trial.never_started:
            continue
        summed += trial.device_seconds if trial.device_seconds is not None else 0.0
        spent = summed if not run.ledger else ended.get(f"trial {trial.number}", latest)
        label = " · ".join(part for part in (trial.origin, trial.reason) if part)
        points.append(ProgressPoint(trial.number, spent, trial.value, trial.outcome, label))
    if not points:
        return NoFigure("No trial has been started yet.")
    points.sort(key=lambda point: (point.spent_device_seconds, point.trial))
    best: list[tuple[float, float]] = []
    for point in points:
        if point.outcome == "complete" and point.objective is not None and (not best or point.objective > best[-1][1]):
            best.append((point.spent_device_seconds, point.objective))
    return ProgressInfo(tuple(points), tuple(best), run.budget_device_seconds, run.device)


def draw_progress(info: ProgressInfo) -> go.Figure:
    """Trials by outcome, the best so far as steps, the budget as a line. Trials without a value stand on the floor."""
    last = max(point.spent_device_seconds for point in info.points)
    unit = time_unit(max(last, info.budget_device_seconds or 0.0), info.device)
    figure = base_figure(420, x_title=f"spent ({unit.label})", y_title="objective on validation images")
    values = [point.objective for point in info.points if point.objective is not None]
    floor = min(values, default=0.0) - 0.04
    for outcome in OUTCOMES:
        chosen = [point for point in info.points if point.outcome == outcome]
        if not chosen:
            continue
        figure.add_scatter(
            x=[point.spent_device_seconds / unit.device_seconds for point in chosen],
            y=[floor if point.objective is None else point.objective for point in chosen],
            mode="markers",
            name=f"{OUTCOME_LABELS[outcome]} ({len(chosen)})",
            marker={"color": OUTCOME_COLOURS[outcome], "symbol": OUTCOME_SYMBOLS[outcome], "size": 9, "opacity": 0.85},
            text=[
                f"<b>trial {point.trial}</b> {OUTCOME_LABELS[outcome]}<br>{escape_plotly(point.label)}<br>"
                f"objective {percent(point.objective)} after {duration(point.spent_device_seconds, info.device)}"
                for point in chosen
            ],
            hovertemplate="%{text}<extra></extra>",
        )
    if info.best:
        steps = (*info.best, (last, info.best[-1][1]))
        figure.add_scatter(
            x=[spent / unit.device_seconds for spent, _ in steps],
            y=[value for _, value in steps],
            mode="lines",
            name="best so far",
            line={"color": ACCENT, "width": 2.5, "shape": "hv"},
            hovertemplate="best so far %{y:.1%}<extra></extra>",
        )
    if info.budget_device_seconds:
        figure.add_vline(
            x=info.budget_device_seconds / unit.device_seconds,
            line={"color": MUTED, "dash": "dash", "width": 1.5},
            annotation={"text": "budget", "xanchor": "right", "xshift": -4, "font": {"color": MUTED}},
        )
    if any(point.objective is None for point in info.points):
        figure.add_annotation(
            text="no value", x=0, xref="paper", y=floor, xanchor="left", yshift=12, showarrow=False, font_color=MUTED
        )
    figure.update_yaxes(tickformat=".1~%")
    figure.update_xaxes(rangemode="tozero")
    return figure
