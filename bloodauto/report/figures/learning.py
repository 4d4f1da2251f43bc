"""Figure: learning curves and the pruner's rungs."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bloodauto.report.figures.style import MUTED, STATE_COLOURS, Figure, NoFigure, base_figure
from bloodauto.report.formatting import percent
from bloodauto.report.run_info import STATE_LABELS, TRIAL_STATES, RunInfo, TrialState

#: Fewer are no curve.
_FEWEST_POINTS = 2


@dataclass(frozen=True)
class LearningCurve:
    """One trial's objective after each epoch that reported one.

    Attributes:
        trial: its number.
        state: how it ended.
        epochs: ascending.
        objectives: 0-1, one for each epoch.
    """

    trial: int
    state: TrialState
    epochs: tuple[int, ...]
    objectives: tuple[float, ...]


@dataclass(frozen=True)
class LearningInfo:
    """Learning curves.

    Attributes:
        curves: one for each trial that finished an epoch.
        rungs: epochs after which trials were pruned, ascending.
    """

    curves: tuple[LearningCurve, ...]
    rungs: tuple[int, ...]


def learning_info(run: RunInfo) -> LearningInfo | NoFigure:
    """Curves of all trials. The rungs come from the reasons of pruned trials: ``rung_3`` is after epoch 3."""
    curves = tuple(
        LearningCurve(trial.number, trial.state, *zip(*trial.curve, strict=True)) for trial in run.trials if trial.curve
    )
    if all(len(curve.epochs) < _FEWEST_POINTS for curve in curves):
        return NoFigure("No trial has finished two epochs yet.")
    rungs = {
        int(match[1])
        for trial in run.trials
        if trial.state == "pruned" and (match := re.fullmatch(r"rung_(\d{1,6})", trial.attributes.reason))
    }
    return LearningInfo(curves, tuple(sorted(rungs)))


def draw_learning(info: LearningInfo) -> Figure:
    """Objective over epochs, coloured by state; rungs as vertical lines."""
    figure = base_figure(420, x_title="epoch", y_title="objective on validation images")
    # One trace for each state, its curves separated by gaps: thousands of traces would make the page slow.
    for rank, state in reversed(list(enumerate(TRIAL_STATES))):
        curves = [curve for curve in info.curves if curve.state == state]
        if not curves:
            continue
        label = STATE_LABELS[state]
        figure.add_scatter(
            x=[epoch for curve in curves for epoch in (*curve.epochs, None)],
            y=[value for curve in curves for value in (*curve.objectives, None)],
            text=[
                text
                for curve in curves
                for text in (*(f"<b>trial {curve.trial}</b> {label}<br>{percent(v)}" for v in curve.objectives), "")
            ],
            mode="lines+markers",
            name=label,
            legendrank=rank,
            line={"color": STATE_COLOURS[state], "width": 1.6},
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
