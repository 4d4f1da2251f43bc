"""What leaving the least sure images to a person buys."""

from __future__ import annotations

from dataclasses import dataclass

import plotly.graph_objects as go

from bloodauto.report.figures.style import ACCENT, MUTED, NoFigure, base_figure
from bloodauto.report.info import RunInfo, SelectiveResult


@dataclass(frozen=True)
class RiskCoverageInfo:
    """``parts``: (which images, their curve and the place of the exported threshold on it), plain images first."""

    parts: tuple[tuple[str, SelectiveResult], ...]


def risk_coverage_info(run: RunInfo) -> RiskCoverageInfo | NoFigure:
    """Of the rule that ``predict`` goes by where it was exported, else of the line for answers alone."""
    if run.ood is not None:
        return RiskCoverageInfo((("own images", run.ood.in_domain), ("simulated sites", run.ood.external)))
    abstention = None if run.ensemble is None else run.ensemble.abstention
    if abstention is None:
        return NoFigure("No ensemble has been made, so no threshold has been set.")
    both = (("clean images", abstention.clean), ("shifted views", abstention.shifted))
    parts = tuple((name, part) for name, part in both if part is not None and part.curve)
    return RiskCoverageInfo(parts) if parts else NoFigure("The ensemble has no risk-coverage curve.")


def draw_risk_coverage(info: RiskCoverageInfo) -> go.Figure:
    """Share of wrong answers over the share of images that get one, the surest first; the threshold as a large point."""
    figure = base_figure(400, x_title="images that get an answer, the surest first", y_title="wrong among the answers")
    for colour, (name, part) in zip((MUTED, ACCENT), info.parts, strict=False):
        figure.add_scatter(
            x=[coverage for coverage, _ in part.curve],
            y=[wrong for _, wrong in part.curve],
            mode="lines",
            name=name,
            line={"color": colour, "width": 2},
            hovertemplate="%{x:.1%} answered<br>%{y:.1%} of these wrong<extra>" + name + "</extra>",
        )
        if part.accuracy is not None:
            figure.add_scatter(
                x=[part.coverage],
                y=[1 - part.accuracy],
                mode="markers",
                marker={"color": colour, "size": 13, "line": {"color": "white", "width": 1}},
                showlegend=False,
                hovertemplate="threshold: %{x:.1%} answered<br>%{y:.1%} of these wrong<extra>" + name + "</extra>",
            )
    figure.update_xaxes(tickformat=".0%", range=[0, 1.03])
    figure.update_yaxes(tickformat=".1~%", rangemode="tozero")
    return figure
