"""What all figures share: colours, the base layout, and the value that stands for a figure that cannot be drawn."""

from __future__ import annotations

import html
import json
from dataclasses import dataclass
from typing import Any, TypeAlias

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from bloodauto.report.run_info import TrialState

ACCENT = "#a3123a"
INK = "#1d2430"
MUTED = "#8a93a3"
GRID = "#e8eaee"

#: Of Okabe and Ito's palette, which people with any colour vision can tell apart.
STATE_COLOURS: dict[TrialState, str] = {
    "complete": "#0072b2",
    "pruned": "#e69f00",
    "failed": "#d55e00",
    "out_of_budget": "#cc79a7",
    "running": "#009e73",
    "waiting": MUTED,
}

#: States differ without colour, too.
STATE_SYMBOLS: dict[TrialState, str] = {
    "complete": "circle",
    "pruned": "triangle-down",
    "failed": "x",
    "out_of_budget": "square",
    "running": "circle-open",
    "waiting": "circle-open",
}

#: A drawn figure, for modules that do not import plotly.
Figure: TypeAlias = go.Figure


@dataclass(frozen=True)
class NoFigure:
    """A figure that cannot be drawn.

    Attributes:
        reason: one sentence for the reader.
    """

    reason: str


def plotly_javascript() -> str:
    """The program that draws figures in a browser."""
    return str(get_plotlyjs())


def plain_figure(figure: Figure) -> dict[str, Any]:
    """A figure as plain values, which plotly's program draws."""
    value: dict[str, Any] = json.loads(figure.to_json())
    return value


def escape_plotly(text: str) -> str:
    """Escapes text for plotly, which reads a small HTML of its own in titles, labels and hovers.

    Example:
        >>> escape_plotly("a<b")
        'a&lt;b'
    """
    return html.escape(text, quote=False)


def base_figure(height_px: int, *, x_title: str = "", y_title: str = "") -> Figure:
    """An empty figure in the report's style: as wide as the page, legend above, labels never cut.

    Args:
        height_px: its height in pixels.
        x_title: of the horizontal axis.
        y_title: of the vertical axis.
    """
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
