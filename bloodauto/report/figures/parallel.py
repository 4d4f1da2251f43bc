"""Every trial as a line through its parameters."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from bloodauto.report.figures.style import MUTED, NoFigure, base_figure, escape_plotly
from bloodauto.report.info import RunInfo, TrialInfo
from bloodauto.report.labels import percent, short_names, shorten

_INACTIVE_POSITION = -0.12
_COLOUR_SCALE = "Viridis_r"


@dataclass(frozen=True)
class ParallelAxis:
    """One parameter. ``ticks``: (position in [0, 1], text)."""

    name: str
    ticks: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class ParallelLine:
    """One trial. ``positions``: one an axis, in [0, 1]; ``None`` where the trial's branch lacks that parameter."""

    trial: int
    objective: float
    positions: tuple[float | None, ...]
    texts: tuple[str, ...]


@dataclass(frozen=True)
class ParallelInfo:
    """Lines are in rising order of the objective, so that the best is drawn on top."""

    axes: tuple[ParallelAxis, ...]
    lines: tuple[ParallelLine, ...]


def parallel_info(
    run: RunInfo, names: tuple[str, ...] = (), *, max_axes: int = 8, max_lines: int = 300
) -> ParallelInfo | NoFigure:
    """Complete and pruned trials over the parameters ``names`` (those in most trials, where none are given).

    Pruned trials count with the last objective seen, which flatters nobody: it is what they were pruned for.
    """
    trials = [trial for trial in run.trials if trial.value is not None and trial.outcome in ("complete", "pruned")]
    present = Counter(param.name for trial in trials for param in trial.params if not param.distribution.single())
    chosen = [name for name in names if name in present] or sorted(present, key=lambda name: (-present[name], name))
    chosen = chosen[:max_axes]
    if len(trials) < 2 or len(chosen) < 2:
        return NoFigure("At least two trials with a value and two sampled parameters are needed.")
    trials = sorted(trials, key=_objective)[-max_lines:]
    axes, columns = zip(*(_axis(name, trials) for name in chosen), strict=True)
    lines = tuple(
        ParallelLine(
            trial.number,
            _objective(trial),
            tuple(column[index][0] for column in columns),
            tuple(column[index][1] for column in columns),
        )
        for index, trial in enumerate(trials)
    )
    return ParallelInfo(axes, lines)


def _objective(trial: TrialInfo) -> float:
    assert trial.value is not None
    return trial.value


def _axis(name: str, trials: list[TrialInfo]) -> tuple[ParallelAxis, list[tuple[float | None, str]]]:
    params = [next((param for param in trial.params if param.name == name), None) for trial in trials]
    values = [None if param is None else param.value for param in params]
    known = [value for value in values if value is not None]
    distribution = next(param.distribution for param in params if param is not None) if known else None
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in known)
    if not numeric or hasattr(distribution, "choices"):
        words = [_value_label(value) for value in known]
        kinds = sorted(set(words))
        step = 1 / max(len(kinds) - 1, 1)
        place = {word: index * step if len(kinds) > 1 else 0.5 for index, word in enumerate(kinds)}
        cells: list[tuple[float | None, str]] = [
            (None, "not in this branch") if value is None else (place[_value_label(value)], _value_label(value))
            for value in values
        ]
        return ParallelAxis(name, tuple((place[word], word) for word in kinds)), cells
    log = bool(getattr(distribution, "log", False))
    scaled = [math.log10(value) if log else float(value) for value in known]
    low, high = (min(scaled), max(scaled)) if scaled else (0.0, 1.0)
    width = high - low if high > low else 1.0

    def at(value: float) -> float:
        return ((math.log10(value) if log else float(value)) - low) / width if high > low else 0.5

    ends = sorted(set(known), key=float)
    ticks = tuple((at(value), f"{value:.3g}") for value in dict.fromkeys((*ends[:1], *ends[-1:])))
    return ParallelAxis(name, ticks), [
        (None, "not in this branch") if value is None else (at(value), f"{value:.4g}") for value in values
    ]


def _value_label(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def draw_parallel(info: ParallelInfo) -> go.Figure:
    """Drawn as ordinary lines: plotly's own parallel coordinates need WebGL, which a locked-down browser lacks."""
    names = short_names(tuple(axis.name for axis in info.axes))
    figure = base_figure(460)
    low, high = info.lines[0].objective, info.lines[-1].objective
    across = list(range(len(info.axes)))
    for line in info.lines:
        share = (line.objective - low) / (high - low) if high > low else 1.0
        colour = sample_colorscale(_COLOUR_SCALE, [share])[0]
        figure.add_scatter(
            x=across,
            y=[_INACTIVE_POSITION if position is None else position for position in line.positions],
            mode="lines+markers",
            line={"color": colour, "width": 1.2 + 1.8 * share},
            marker={"size": 4},
            opacity=0.25 + 0.65 * share,
            text=[
                f"{escape_plotly(name)} = {escape_plotly(text)}" for name, text in zip(names, line.texts, strict=True)
            ],
            hovertemplate=f"<b>trial {line.trial}</b> {percent(line.objective)}<br>%{{text}}<extra></extra>",
            showlegend=False,
        )
    for index, axis in enumerate(info.axes):
        figure.add_vline(x=index, line={"color": MUTED, "width": 1}, layer="below")
        for position, text in axis.ticks:
            figure.add_annotation(
                x=index,
                y=position,
                text=escape_plotly(shorten(text, 16)),
                showarrow=False,
                xanchor="left",
                xshift=4,
                yshift=8,
                font={"size": 11},
                bgcolor="rgba(255,255,255,0.75)",
            )
    if any(position is None for line in info.lines for position in line.positions):
        figure.add_annotation(
            text="not in this branch",
            x=-0.4,
            y=_INACTIVE_POSITION,
            xanchor="left",
            yshift=-9,
            showarrow=False,
            font_color=MUTED,
        )
    # An invisible point carries the colour bar.
    figure.add_scatter(
        x=[None],
        y=[None],
        mode="markers",
        showlegend=False,
        marker={
            "color": [low],
            "cmin": low,
            "cmax": high if high > low else low + 1e-9,
            "colorscale": _COLOUR_SCALE,
            "showscale": True,
            "colorbar": {
                "orientation": "h",
                "thickness": 8,
                "len": 0.5,
                "x": 0,
                "xanchor": "left",
                "y": 1.02,
                "yanchor": "bottom",
                "tickformat": ".1~%",
                "nticks": 4,
                "title": {"text": "objective", "side": "top", "font": {"size": 13}},
            },
        },
    )
    labels = [escape_plotly(shorten(name, 26)).replace(".", ".<br>", 1) for name in names]
    figure.update_xaxes(
        tickvals=across, ticktext=labels, showgrid=False, range=[-0.45, len(across) - 0.55], tickangle=0
    )
    figure.update_yaxes(visible=False, range=[-0.2, 1.12])
    figure.update_layout(margin_t=70)
    return figure
