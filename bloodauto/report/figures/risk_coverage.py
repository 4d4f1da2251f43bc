"""Figure: error rate against the fraction of images that get a prediction."""

from __future__ import annotations

from dataclasses import dataclass

from bloodauto.report.figures.style import ACCENT, MUTED, Figure, NoFigure, base_figure
from bloodauto.report.run_info import RunInfo
from bloodauto.run.artifacts import SelectiveAccuracy


@dataclass(frozen=True)
class RiskCoverageInfo:
    """Risk-coverage curves.

    Attributes:
        curves: (which images, curve and exported threshold), in-domain images first.
    """

    curves: tuple[tuple[str, SelectiveAccuracy], ...]


def risk_coverage_info(run: RunInfo) -> RiskCoverageInfo | NoFigure:
    """Of the OOD detector that ``predict`` uses where it was exported, else of the abstention rule."""
    if run.ood is not None:
        return RiskCoverageInfo((("in-domain images", run.ood.in_domain), ("simulated sites", run.ood.external)))
    if run.ensemble is None:
        return NoFigure("No ensemble has been selected, so no abstention threshold has been set.")
    abstention = run.ensemble.abstention
    shifted = () if abstention.shifted is None else (("shifted images", abstention.shifted),)
    return RiskCoverageInfo((("clean images", abstention.clean), *shifted))


def draw_risk_coverage(info: RiskCoverageInfo) -> Figure:
    """One curve for each kind of images, most confident first; the exported threshold as a large point."""
    figure = base_figure(400, x_title="coverage (images with a prediction)", y_title="risk (error rate among these)")
    for colour, (name, part) in zip((MUTED, ACCENT), info.curves, strict=False):
        figure.add_scatter(
            x=part.curve.coverage,
            y=part.curve.risk,
            mode="lines",
            name=name,
            line={"color": colour, "width": 2},
            hovertemplate="coverage %{x:.1%}<br>risk %{y:.1%}<extra>" + name + "</extra>",
        )
        if part.accuracy is not None:
            figure.add_scatter(
                x=[part.coverage],
                y=[1 - part.accuracy],
                mode="markers",
                marker={"color": colour, "size": 13, "line": {"color": "white", "width": 1}},
                showlegend=False,
                hovertemplate="threshold: coverage %{x:.1%}<br>risk %{y:.1%}<extra>" + name + "</extra>",
            )
    figure.update_xaxes(tickformat=".0%", range=[0, 1.03])
    figure.update_yaxes(tickformat=".1~%", rangemode="tozero")
    return figure
