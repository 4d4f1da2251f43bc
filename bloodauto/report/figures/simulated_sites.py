"""How the ensemble did in simulated laboratories, and the interval that follows for a real one."""

from __future__ import annotations

from dataclasses import dataclass

import plotly.graph_objects as go

from bloodauto.report.figures.style import ACCENT, MUTED, Absent, base_figure, plain
from bloodauto.report.info import RunInfo, SimulatedLaboratory
from bloodauto.report.labels import percent


@dataclass(frozen=True)
class LaboratoriesInfo:
    """``low``, ``high``: the interval for another laboratory; ``home``: accuracy on the sealed images as they are."""

    laboratories: tuple[SimulatedLaboratory, ...]
    low: float
    high: float
    home: float | None


def laboratories_info(run: RunInfo) -> LaboratoriesInfo | Absent:
    test = run.test
    if test is None or test.elsewhere is None or not test.laboratories:
        return Absent("The sealed test has not been judged in simulated laboratories.")
    return LaboratoriesInfo(test.laboratories, test.elsewhere.low, test.elsewhere.high, test.accuracy)


def draw_laboratories(info: LaboratoriesInfo) -> go.Figure:
    """Accuracy over the number of things that differ; the harsher, the darker; the interval as a band."""
    figure = base_figure(400, x_title="things that differ at once", y_title="accuracy")
    figure.add_hrect(y0=info.low, y1=info.high, fillcolor=ACCENT, opacity=0.08, line_width=0)
    figure.add_scatter(
        x=[len(one.families) for one in info.laboratories],
        y=[one.accuracy for one in info.laboratories],
        mode="markers",
        marker={
            "size": 10,
            "color": [one.severity for one in info.laboratories],
            "colorscale": [[0, "#efc4cf"], [1, ACCENT]],
            "cmin": 1,
            "cmax": 5,
            "line": {"color": "white", "width": 1},
            "colorbar": {"title": {"text": "severity"}, "thickness": 10, "outlinewidth": 0},
        },
        text=[
            f"{percent(one.accuracy)} of {one.images} images<br>severity {one.severity:.1f}<br>"
            + "<br>".join(plain(name.replace("_", " ")) for name in one.families)
            for one in info.laboratories
        ],
        hovertemplate="%{text}<extra></extra>",
    )
    if info.home is not None:
        figure.add_hline(y=info.home, line={"color": MUTED, "dash": "dash", "width": 1.5})
    figure.update_xaxes(dtick=1, range=[0.4, max(len(one.families) for one in info.laboratories) + 0.6])
    figure.update_yaxes(tickformat=".0%", range=[0, 1.03])
    figure.update_layout(showlegend=False)
    return figure
