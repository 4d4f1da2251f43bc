"""What all figures share: colours, fonts, and the value that stands for a figure that cannot be drawn."""

from __future__ import annotations

import html
from dataclasses import dataclass

import plotly.graph_objects as go

from bloodauto.report.info import Outcome

ACCENT = "#a3123a"
INK = "#1d2430"
MUTED = "#8a93a3"
GRID = "#e8eaee"

OUTCOME_COLOURS: dict[Outcome, str] = {
    "complete": "#1c6dd0",
    "pruned": "#e09b2d",
    "failed": "#c62828",
    "out_of_budget": "#7b4bb3",
    "running": "#189a80",
    "waiting": MUTED,
}

#: Told apart without colour, too.
OUTCOME_SYMBOLS: dict[Outcome, str] = {
    "complete": "circle",
    "pruned": "triangle-down",
    "failed": "x",
    "out_of_budget": "square",
    "running": "circle-open",
    "waiting": "circle-open",
}


@dataclass(frozen=True)
class NoFigure:
    """A figure that cannot be drawn, and why, in words for the reader."""

    reason: str


def escape_plotly(text: str) -> str:
    """Text for plotly, which reads a small HTML of its own in titles, labels and hovers."""
    return html.escape(text, quote=False)


def base_figure(height_px: int, *, x_title: str = "", y_title: str = "") -> go.Figure:
    """An empty figure in the report's style: as wide as the page, legend above, labels never cut."""
    figure = go.Figure()
    figure.update_layout(
        template="none",
        height=height_px,
        autosize=True,
        margin={"l": 12, "r": 12, "t": 44, "b": 12},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif", "size": 13},
        font_color=INK,
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"},
        hoverlabel={"bgcolor": "white", "font": {"color": INK}, "align": "left"},
        hovermode="closest",
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": "#c3c8d1", "activecolor": ACCENT},
    )
    axis = {"gridcolor": GRID, "zeroline": False, "automargin": True, "linecolor": MUTED, "ticks": ""}
    figure.update_xaxes(title={"text": x_title, "standoff": 10, "font": {"size": 13}}, showline=True, **axis)
    figure.update_yaxes(title={"text": y_title, "standoff": 10, "font": {"size": 13}}, showline=False, **axis)
    return figure
