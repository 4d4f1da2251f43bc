"""Figures: objective against clean accuracy, and accuracy by corruption group."""

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
from bloodauto.report.formatting import percent, shift_name
from bloodauto.report.run_info import STATE_LABELS, TRIAL_STATES, RunInfo, TrialState

#: Fewer show no relation.
_FEWEST_POINTS = 3


@dataclass(frozen=True)
class ScatterPoint:
    """One trial.

    Attributes:
        trial: its number.
        clean_accuracy: on clean validation images, 0-1.
        objective: 0-1.
        state: how it ended.
    """

    trial: int
    clean_accuracy: float
    objective: float
    state: TrialState


@dataclass(frozen=True)
class ScatterInfo:
    """Trials that have both an objective and a clean accuracy."""

    points: tuple[ScatterPoint, ...]


@dataclass(frozen=True)
class ShiftInfo:
    """Accuracy on shifted images of the held-out test set.

    Attributes:
        groups: (corruption group, accuracy), lowest first.
        clean: accuracy on the clean images.
    """

    groups: tuple[tuple[str, float], ...]
    clean: float


def scatter_info(run: RunInfo) -> ScatterInfo | NoFigure:
    """Trials with both numbers; of pruned ones those of the last epoch."""
    points = tuple(
        ScatterPoint(trial.number, trial.clean_accuracy, trial.objective, trial.state)
        for trial in run.trials
        if trial.clean_accuracy is not None and trial.objective is not None
    )
    if len(points) < _FEWEST_POINTS:
        return NoFigure(f"{len(points)} trials with an objective and an accuracy on clean images are too few.")
    return ScatterInfo(points)


def draw_scatter(info: ScatterInfo) -> Figure:
    """One point for each trial."""
    figure = base_figure(400, x_title="accuracy on clean validation images", y_title="objective")
    for state in TRIAL_STATES:
        points = [point for point in info.points if point.state == state]
        if points:
            figure.add_scatter(
                x=[point.clean_accuracy for point in points],
                y=[point.objective for point in points],
                mode="markers",
                name=STATE_LABELS[state],
                marker={"color": STATE_COLOURS[state], "symbol": STATE_SYMBOLS[state], "size": 9},
                opacity=0.85,
                text=[
                    f"<b>trial {point.trial}</b><br>clean {percent(point.clean_accuracy)}<br>"
                    f"objective {percent(point.objective)}"
                    for point in points
                ],
                hovertemplate="%{text}<extra></extra>",
            )
    figure.update_xaxes(tickformat=".1~%")
    figure.update_yaxes(tickformat=".1~%")
    return figure


def shift_info(run: RunInfo) -> ShiftInfo | NoFigure:
    """Of the held-out test set."""
    test = run.held_out_test
    if test is None or not test.shift:
        return NoFigure("The held-out test set has not been evaluated on shifted images yet.")
    return ShiftInfo(tuple(sorted(test.shift.items(), key=lambda group: (group[1], group[0]))), test.accuracy)


def draw_shift(info: ShiftInfo) -> Figure:
    """One bar for each corruption group, and the clean accuracy as a line."""
    figure = base_figure(120 + 34 * len(info.groups), x_title="accuracy")
    figure.add_bar(
        x=[accuracy for _, accuracy in info.groups],
        y=[escape_plotly(shift_name(name)).replace(" (", "<br>(") for name, _ in info.groups],
        orientation="h",
        marker={"color": ACCENT, "cornerradius": 3},
        text=[percent(accuracy) for _, accuracy in info.groups],
        textposition="inside",
        insidetextanchor="end",
        hovertemplate="%{y}: %{text}<extra></extra>",
    )
    figure.add_vline(
        x=info.clean,
        line={"color": MUTED, "dash": "dash", "width": 1.5},
        annotation={
            "text": f"clean {percent(info.clean)}",
            "y": 1,
            "yref": "paper",
            "yanchor": "bottom",
            "xanchor": "right",
            "font": {"color": MUTED},
        },
    )
    figure.update_xaxes(tickformat=".0%", range=[0, 1])
    figure.update_yaxes(autorange="reversed", showgrid=False)
    # The line's label stands below the buttons.
    figure.update_layout(showlegend=False, margin_t=54)
    return figure
