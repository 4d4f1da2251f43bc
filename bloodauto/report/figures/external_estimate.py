"""What a model's accuracy here says of other labs: objective against clean accuracy, and accuracy by kind of shift."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
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
from bloodauto.report.info import OUTCOME_LABELS, OUTCOMES, Outcome, RunInfo, TrialInfo
from bloodauto.report.labels import percent, shift_name

MIN_TRIALS_FOR_RANKS = 5


@dataclass(frozen=True)
class ScatterPoint:
    trial: int
    clean_accuracy: float
    objective: float
    outcome: Outcome


@dataclass(frozen=True)
class ScatterInfo:
    """``rank_correlation``: Spearman's, over complete trials; ``None`` when there are fewer than five of them."""

    points: tuple[ScatterPoint, ...]
    rank_correlation: float | None


@dataclass(frozen=True)
class ShiftInfo:
    """``groups``: (kind of shift, accuracy), worst first; ``clean``: accuracy on the images as they are."""

    groups: tuple[tuple[str, float], ...]
    clean: float | None


def scatter_info(run: RunInfo) -> ScatterInfo | NoFigure:
    """Trials that have both numbers; of pruned ones, those of the last epoch."""
    points = []
    for trial in run.trials:
        accuracy = _clean_accuracy(trial)
        if accuracy is not None and trial.value is not None:
            points.append(ScatterPoint(trial.number, accuracy, trial.value, trial.outcome))
    if not points:
        return NoFigure("No trial has both an objective and an accuracy on clean images yet.")
    complete = [point for point in points if point.outcome == "complete"]
    return ScatterInfo(tuple(points), _spearman(complete))


def _clean_accuracy(trial: TrialInfo) -> float | None:
    if trial.metric("accuracy") is not None:
        return trial.metric("accuracy")
    return trial.history[-1].accuracy if trial.history else None


def _spearman(points: list[ScatterPoint]) -> float | None:
    if len(points) < MIN_TRIALS_FOR_RANKS:
        return None
    ranks = [_ranks(np.array([getattr(point, key) for point in points])) for key in ("clean_accuracy", "objective")]
    if any(rank.std() == 0 for rank in ranks):
        return None
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 0; equal values share the mean of theirs."""
    _, inverse, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count + 1) / 2)[inverse]


def draw_scatter(info: ScatterInfo) -> go.Figure:
    figure = base_figure(400, x_title="accuracy on clean validation images", y_title="objective")
    for outcome in OUTCOMES:
        chosen = [point for point in info.points if point.outcome == outcome]
        if chosen:
            figure.add_scatter(
                x=[point.clean_accuracy for point in chosen],
                y=[point.objective for point in chosen],
                mode="markers",
                name=OUTCOME_LABELS[outcome],
                marker={"color": OUTCOME_COLOURS[outcome], "symbol": OUTCOME_SYMBOLS[outcome], "size": 9},
                opacity=0.85,
                text=[
                    f"<b>trial {point.trial}</b><br>clean {percent(point.clean_accuracy)}<br>"
                    f"objective {percent(point.objective)}"
                    for point in chosen
                ],
                hovertemplate="%{text}<extra></extra>",
            )
    figure.update_xaxes(tickformat=".1~%")
    figure.update_yaxes(tickformat=".1~%")
    return figure


def shift_info(run: RunInfo) -> ShiftInfo | NoFigure:
    if run.test is None or not run.test.shift:
        return NoFigure("The held-out test has not been judged on shifted views yet.")
    return ShiftInfo(tuple(sorted(run.test.shift, key=lambda group: (group[1], group[0]))), run.test.accuracy)


def draw_shift(info: ShiftInfo) -> go.Figure:
    figure = base_figure(120 + 34 * len(info.groups), x_title="accuracy")
    figure.add_bar(
        x=[accuracy for _, accuracy in info.groups],
        y=[escape_plotly(shift_name(name)).replace(", ", "<br>") for name, _ in info.groups],
        orientation="h",
        marker={"color": ACCENT, "cornerradius": 3},
        text=[percent(accuracy) for _, accuracy in info.groups],
        textposition="inside",
        insidetextanchor="end",
        hovertemplate="%{y}: %{text}<extra></extra>",
    )
    if info.clean is not None:
        figure.add_vline(
            x=info.clean,
            line={"color": MUTED, "dash": "dash", "width": 1.5},
            annotation={
                "text": f"as they are {percent(info.clean)}",
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
