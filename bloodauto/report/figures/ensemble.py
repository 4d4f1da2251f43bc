"""Figure: the members of the ensemble, and its scores against those of the best single network."""

from __future__ import annotations

from dataclasses import dataclass

from plotly.subplots import make_subplots

from bloodauto.report.figures.style import ACCENT, MUTED, Figure, NoFigure, base_figure, escape_plotly
from bloodauto.report.formatting import percent, shorten, spaced, training_name
from bloodauto.report.run_info import RunInfo

#: Errors would stretch the axis of the scores from 0 to 1; the table below the figure has them.
_LOWER_IS_BETTER = ("ece", "ece_shifted", "loss")


@dataclass(frozen=True)
class EnsembleInfo:
    """Weights and scores.

    Attributes:
        weights: (member, weight), highest first.
        scores: (metric, ensemble, best single) for metrics of which more is better.
        best_single: name of the best candidate alone.
    """

    weights: tuple[tuple[str, float], ...]
    scores: tuple[tuple[str, float, float], ...]
    best_single: str


def ensemble_info(run: RunInfo) -> EnsembleInfo | NoFigure:
    """Of the run's ensemble."""
    if run.ensemble is None:
        return NoFigure("No ensemble has been selected.")
    weights = [(training_name(member.name), member.weight) for member in run.ensemble.members]
    single, together = run.ensemble.best_single.scores.known(), run.ensemble.scores.known()
    return EnsembleInfo(
        tuple(sorted(weights, key=lambda pair: (-pair[1], pair[0]))),
        tuple(
            (name, value, single[name])
            for name, value in together.items()
            if name in single and name not in _LOWER_IS_BETTER
        ),
        training_name(run.ensemble.best_single.name),
    )


def draw_ensemble(info: EnsembleInfo) -> Figure:
    """Weights above; below them the scores of both as points, since bars from zero would hide the difference."""
    rows = len(info.weights) + max(len(info.scores), 1)
    figure = _two_panels(info, 190 + 38 * rows)
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
    metrics = [escape_plotly(spaced(name)) for name, _, _ in info.scores]
    single = f"best single ({escape_plotly(shorten(info.best_single, 30))})"
    for label, name, colour, values in (
        ("best single", single, MUTED, [row[2] for row in info.scores]),
        ("ensemble", "ensemble", ACCENT, [row[1] for row in info.scores]),
    ):
        figure.add_scatter(
            x=values,
            y=metrics,
            mode="markers",
            name=name,
            marker={"color": colour, "size": 12, "line": {"color": "white", "width": 1}},
            text=[percent(value, 2) for value in values],
            hovertemplate="%{y}: %{text}<extra>" + label + "</extra>",
            row=2,
            col=1,
        )
    return figure


def _two_panels(info: EnsembleInfo, height_px: int) -> Figure:
    figure = make_subplots(
        rows=2,
        cols=1,
        row_heights=[len(info.weights) + 1, max(len(info.scores), 1) + 1],
        vertical_spacing=70 / height_px,
        subplot_titles=["weights", "scores on validation images"],
    )
    base = base_figure(height_px).layout
    figure.update_layout(
        {key: base[key] for key in ("template", "height", "paper_bgcolor", "plot_bgcolor", "font", "modebar")}
    )
    figure.update_layout(margin={"l": 12, "r": 24, "t": 34, "b": 70}, hoverlabel=base.hoverlabel)
    axis = {"automargin": True, "zeroline": False, "gridcolor": base.xaxis.gridcolor}
    figure.update_xaxes(**axis)
    # A category axis: on any other a name that is a number would become a place on a scale.
    figure.update_yaxes(autorange="reversed", type="category", **axis)
    figure.update_yaxes(showgrid=False, row=1, col=1)
    figure.update_xaxes(rangemode="tozero", row=1, col=1)
    figure.update_xaxes(tickformat=".1~%", row=2, col=1)
    figure.update_annotations(x=0, xanchor="left", font={"size": 13})
    figure.update_layout(
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 0, "yanchor": "bottom", "yref": "container"}
    )
    return figure
