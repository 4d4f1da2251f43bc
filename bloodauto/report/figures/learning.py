"""Learning curves with the pruner's rungs."""

from __future__ import annotations

import re
from dataclasses import dataclass

import plotly.graph_objects as go

from bloodauto.report.figures.style import MUTED, OUTCOME_COLOURS, NoFigure, base_figure
from bloodauto.report.info import OUTCOME_LABELS, OUTCOMES, Outcome, RunInfo
from bloodauto.report.labels import percent


@dataclass(frozen=True)
class LearningCurve:
    """One trial's objective after each epoch that reported one."""

    trial: int
    outcome: Outcome
    epochs: tuple[int, ...]
    objectives: tuple[float, ...]


@dataclass(frozen=True)
class LearningInfo:
    """``rungs``: epochs after which trials were compared and weaker ones stopped, ascending."""

    curves: tuple[LearningCurve, ...]
    rungs: tuple[int, ...]


def learning_info(run: RunInfo) -> LearningInfo | NoFigure:
    """The rungs are where they have shown: ``rung_3`` is why a trial was pruned after epoch 3."""
    curves = tuple(
        LearningCurve(trial.number, trial.outcome, *zip(*trial.intermediate, strict=True))
        for trial in run.trials
        if trial.intermediate
    )
    if not curves:
        return NoFigure("No trial has finished an epoch yet.")
    rungs = {
        int(match[1])
        for trial in run.trials
        if trial.outcome == "pruned" and (match := re.fullmatch(r"rung_(\d{1,6})", trial.reason))
    }
    return LearningInfo(curves, tuple(sorted(rungs)))


def draw_learning(info: LearningInfo) -> go.Figure:
    figure = base_figure(420, x_title="epoch", y_title="objective on validation images")
    # One trace an outcome, its curves parted by gaps: thousands of traces would make the page crawl.
    for rank, outcome in reversed(list(enumerate(OUTCOMES))):
        curves = [curve for curve in info.curves if curve.outcome == outcome]
        if not curves:
            continue
        word = OUTCOME_LABELS[outcome]
        figure.add_scatter(
            x=[epoch for curve in curves for epoch in (*curve.epochs, None)],
            y=[value for curve in curves for value in (*curve.objectives, None)],
            text=[
                text
                for curve in curves
                for text in (*(f"<b>trial {curve.trial}</b> {word}<br>{percent(v)}" for v in curve.objectives), "")
            ],
            mode="lines+markers",
            name=word,
            legendrank=rank,
            line={"color": OUTCOME_COLOURS[outcome], "width": 1.6},
            marker={"size": 6},
            opacity=0.75,
            hovertemplate="%{text} after epoch %{x}<extra></extra>",
        )
    for epoch in info.rungs:
        figure.add_vline(
            x=epoch,
            line={"color": MUTED, "dash": "dot", "width": 1.5},
            annotation={"text": "rung", "font": {"color": MUTED}, "yref": "paper", "y": 0, "yanchor": "bottom"},
        )
    figure.update_yaxes(tickformat=".1~%")
    longest = max(curve.epochs[-1] for curve in info.curves)
    figure.update_xaxes(range=[0, longest + 0.6], showgrid=False, tickformat="d", dtick=max(1, round(longest / 10)))
    return figure
