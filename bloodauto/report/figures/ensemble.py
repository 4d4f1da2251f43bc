"""The ensemble: who is in it, and what it is worth against the best single network."""

from __future__ import annotations

from dataclasses import dataclass

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from bloodauto.report.figures.style import ACCENT, MUTED, NoFigure, base_figure, escape_plotly
from bloodauto.report.info import RunInfo
from bloodauto.report.labels import percent, shorten, training_name

#: Errors would stretch the axis of the scores from nought to one; the table below the figure has them.
_LOWER_IS_BETTER = ("ece", "ece_shifted", "loss", "nll", "brier")


@dataclass(frozen=True)
class EnsembleInfo:
    """``weights``: (member, weight), heaviest first; ``scores``: (metric, ensemble, best single), of those both have and of
    which more is better."""

    weights: tuple[tuple[str, float], ...]
    scores: tuple[tuple[str, float, float], ...]
    best_single: str


def ensemble_info(run: RunInfo) -> EnsembleInfo | NoFigure:
    if run.ensemble is None or not run.ensemble.members:
        return NoFigure("No ensemble has been made.")
    single = dict(run.ensemble.best_single_scores)
    return EnsembleInfo(
        tuple(
            sorted(
                ((training_name(m.name), m.weight) for m in run.ensemble.members), key=lambda pair: (-pair[1], pair[0])
            )
        ),
        tuple(
            (name, score, single[name])
            for name, score in run.ensemble.scores
            if name in single and name not in _LOWER_IS_BETTER
        ),
        training_name(run.ensemble.best_single),
    )


def draw_ensemble(info: EnsembleInfo) -> go.Figure:
    """Above the weights; below the scores of both, as points, since bars from zero would hide the difference."""
    weight_rows, score_rows = len(info.weights), max(len(info.scores), 1)
    figure = make_subplots(
        rows=2,
        cols=1,
        row_heights=[weight_rows + 1, score_rows + 1],
        vertical_spacing=70 / (190 + 38 * (weight_rows + score_rows)),
        subplot_titles=["weights", "scores on validation images"],
    )
    base = base_figure(190 + 38 * (weight_rows + score_rows)).layout
    figure.update_layout(
        {key: base[key] for key in ("template", "height", "paper_bgcolor", "plot_bgcolor", "font", "modebar")}
    )
    figure.update_layout(margin={"l": 12, "r": 24, "t": 34, "b": 12}, hoverlabel=base.hoverlabel)
    figure.add_bar(
        x=[weight for _, weight in info.weights],
        y=[escape_plotly(shorten(name, 30)) for name, _ in info.weights],
        orientation="h",
        marker={"color": ACCENT, "cornerradius": 3},
        text=[f"{weight:.2f}" for _, weight in info.weights],
        textposition="outside",
        cliponaxis=False,
        hovertemplate="%{y}: weight %{x:.3f}<extra></extra>",
        showlegend=False,
        row=1,
        col=1,
    )
    metrics = [escape_plotly(name.replace("_", " ")) for name, _, _ in info.scores]
    both = (
        ("best single", MUTED, [row[2] for row in info.scores]),
        ("ensemble", ACCENT, [row[1] for row in info.scores]),
    )
    for label, colour, values in both:
        figure.add_scatter(
            x=values,
            y=metrics,
            mode="markers",
            name=label
            + (f" ({escape_plotly(shorten(info.best_single, 30))})" if colour == MUTED and info.best_single else ""),
            marker={"color": colour, "size": 12, "line": {"color": "white", "width": 1}},
            text=[percent(value, 2) for value in values],
            hovertemplate="%{y}: %{text}<extra>" + label + "</extra>",
            row=2,
            col=1,
        )
    axis = {"automargin": True, "zeroline": False, "gridcolor": base.xaxis.gridcolor}
    figure.update_xaxes(**axis)
    figure.update_yaxes(autorange="reversed", **axis)
    # A category axis, or a name that is a number would become a place on a scale.
    figure.update_yaxes(type="category")
    figure.update_yaxes(showgrid=False, row=1, col=1)
    figure.update_xaxes(rangemode="tozero", row=1, col=1)
    figure.update_xaxes(tickformat=".1~%", row=2, col=1)
    figure.update_annotations(x=0, xanchor="left", font={"size": 13})
    legend = {"orientation": "h", "x": 0, "xanchor": "left", "y": 0, "yanchor": "bottom", "yref": "container"}
    figure.update_layout(legend=legend, margin_b=70)
    return figure
