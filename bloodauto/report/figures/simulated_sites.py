"""How the ensemble did in simulated sites, and the interval that follows for a real one."""

from __future__ import annotations

from dataclasses import dataclass

import plotly.graph_objects as go

from bloodauto.report.figures.style import ACCENT, MUTED, NoFigure, base_figure, escape_plotly
from bloodauto.report.info import RunInfo, SimulatedSiteResult
from bloodauto.report.labels import percent


@dataclass(frozen=True)
class SimulatedSitesInfo:
    """``low``, ``high``: the interval for another laboratory; ``home``: accuracy on the sealed images as they are."""

    simulated_sites: tuple[SimulatedSiteResult, ...]
    low: float
    high: float
    in_domain_accuracy: float | None


def simulated_sites_info(run: RunInfo) -> SimulatedSitesInfo | NoFigure:
    test = run.test
    if test is None or test.external is None or not test.simulated_sites:
        return NoFigure("The held-out test has not been judged in simulated sites.")
    return SimulatedSitesInfo(test.simulated_sites, test.external.low, test.external.high, test.accuracy)


def draw_simulated_sites(info: SimulatedSitesInfo) -> go.Figure:
    """Accuracy over the number of things that differ; the harsher, the darker; the interval as a band."""
    figure = base_figure(400, x_title="things that differ at once", y_title="accuracy")
    figure.add_hrect(y0=info.low, y1=info.high, fillcolor=ACCENT, opacity=0.08, line_width=0)
    figure.add_scatter(
        x=[len(one.families) for one in info.simulated_sites],
        y=[one.accuracy for one in info.simulated_sites],
        mode="markers",
        marker={
            "size": 10,
            "color": [one.severity for one in info.simulated_sites],
            "colorscale": [[0, "#efc4cf"], [1, ACCENT]],
            "cmin": 1,
            "cmax": 5,
            "line": {"color": "white", "width": 1},
            "colorbar": {"title": {"text": "severity"}, "thickness": 10, "outlinewidth": 0},
        },
        text=[
            f"{percent(one.accuracy)} of {one.images} images<br>severity {one.severity:.1f}<br>"
            + "<br>".join(escape_plotly(name.replace("_", " ")) for name in one.families)
            for one in info.simulated_sites
        ],
        hovertemplate="%{text}<extra></extra>",
    )
    if info.in_domain_accuracy is not None:
        figure.add_hline(y=info.in_domain_accuracy, line={"color": MUTED, "dash": "dash", "width": 1.5})
    figure.update_xaxes(dtick=1, range=[0.4, max(len(one.families) for one in info.simulated_sites) + 0.6])
    figure.update_yaxes(tickformat=".0%", range=[0, 1.03])
    figure.update_layout(showlegend=False)
    return figure
