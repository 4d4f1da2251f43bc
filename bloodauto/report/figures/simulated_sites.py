"""Figure: the ensemble at simulated sites, and the prediction interval for an external site."""

from __future__ import annotations

from dataclasses import dataclass

from bloodauto.report.figures.style import ACCENT, MUTED, Figure, NoFigure, base_figure, escape_plotly
from bloodauto.report.formatting import percent, spaced
from bloodauto.report.run_info import RunInfo
from bloodauto.run.artifacts import SimulatedSiteResult


@dataclass(frozen=True)
class SimulatedSitesInfo:
    """Results at simulated sites.

    Attributes:
        sites: one entry each.
        low: lower bound of the prediction interval, 0-1.
        high: upper bound, 0-1.
        in_domain_accuracy: on the held-out test images as they are, 0-1.
    """

    sites: tuple[SimulatedSiteResult, ...]
    low: float
    high: float
    in_domain_accuracy: float


def simulated_sites_info(run: RunInfo) -> SimulatedSitesInfo | NoFigure:
    """Of the held-out test set."""
    test = run.held_out_test
    if test is None or test.external is None or not test.simulated_sites:
        return NoFigure("The held-out test set has not been evaluated at simulated sites.")
    return SimulatedSitesInfo(test.simulated_sites, test.external.low, test.external.high, test.accuracy)


def draw_simulated_sites(info: SimulatedSitesInfo) -> Figure:
    """Accuracy over the number of corruption families; darker with severity; the prediction interval as a band."""
    figure = base_figure(400, x_title="corruption families at once", y_title="accuracy")
    figure.add_hrect(y0=info.low, y1=info.high, fillcolor=ACCENT, opacity=0.08, line_width=0)
    figure.add_scatter(
        x=[len(site.families) for site in info.sites],
        y=[site.accuracy for site in info.sites],
        mode="markers",
        marker={
            "size": 10,
            "color": [site.severity for site in info.sites],
            "colorscale": [[0, "#efc4cf"], [1, ACCENT]],
            "cmin": 1,
            "cmax": 5,
            "line": {"color": "white", "width": 1},
            "colorbar": {"title": {"text": "severity"}, "thickness": 10, "outlinewidth": 0},
        },
        text=[
            f"{percent(site.accuracy)} of {site.images} images<br>severity {site.severity:.1f}<br>"
            + "<br>".join(escape_plotly(spaced(name)) for name in site.families)
            for site in info.sites
        ],
        hovertemplate="%{text}<extra></extra>",
    )
    figure.add_hline(y=info.in_domain_accuracy, line={"color": MUTED, "dash": "dash", "width": 1.5})
    figure.update_xaxes(dtick=1, range=[0.4, max(len(site.families) for site in info.sites) + 0.6])
    figure.update_yaxes(tickformat=".0%", range=[0, 1.03])
    figure.update_layout(showlegend=False)
    return figure
