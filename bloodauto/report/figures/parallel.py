"""Figure: every trial as a line through its parameters."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from plotly.colors import sample_colorscale

from bloodauto.report.figures.style import MUTED, Figure, NoFigure, base_figure, escape_plotly
from bloodauto.report.formatting import percent, short_names, shorten
from bloodauto.report.run_info import Parameter, RunInfo, TrialInfo

_INACTIVE = "inactive"
_INACTIVE_POSITION = -0.12
_COLOUR_SCALE = "Viridis_r"
#: Position in [0, 1], None where the parameter is inactive, and text.
_Cell = tuple[float | None, str]


@dataclass(frozen=True)
class ParallelAxis:
    """One parameter.

    Attributes:
        name: dotted path.
        ticks: (position in [0, 1], text).
    """

    name: str
    ticks: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class ParallelLine:
    """One trial.

    Attributes:
        trial: its number.
        objective: 0-1.
        positions: in [0, 1], one for each axis; None where the parameter is inactive in the trial.
        texts: the values, one for each axis.
    """

    trial: int
    objective: float
    positions: tuple[float | None, ...]
    texts: tuple[str, ...]


@dataclass(frozen=True)
class ParallelInfo:
    """Parallel coordinates.

    Attributes:
        axes: the parameters.
        lines: in ascending objective, so that the best is drawn on top.
    """

    axes: tuple[ParallelAxis, ...]
    lines: tuple[ParallelLine, ...]


def parallel_info(
    run: RunInfo, names: Sequence[str] = (), *, max_axes: int = 8, max_lines: int = 300
) -> ParallelInfo | NoFigure:
    """Complete and pruned trials, pruned ones with their last objective.

    Args:
        run: the run.
        names: parameters to show; those that most trials have where there are none.
        max_axes: most parameters.
        max_lines: most trials; the best are kept.
    """
    trials = [trial for trial in run.trials if trial.objective is not None and trial.state in ("complete", "pruned")]
    sampled = Counter(
        parameter.name for trial in trials for parameter in trial.parameters if not parameter.distribution.single()
    )
    chosen = [name for name in names if name in sampled] or sorted(sampled, key=lambda name: (-sampled[name], name))
    chosen = chosen[:max_axes]
    if len(trials) < 2 or len(chosen) < 2:
        return NoFigure("At least two trials with an objective and two sampled parameters are needed.")
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
    assert trial.objective is not None
    return trial.objective


def _axis(name: str, trials: Sequence[TrialInfo]) -> tuple[ParallelAxis, list[_Cell]]:
    parameters = [
        next((parameter for parameter in trial.parameters if parameter.name == name), None) for trial in trials
    ]
    active = [parameter for parameter in parameters if parameter is not None]
    numbers = [parameter.value for parameter in active if _is_number(parameter)]
    is_categorical = any(hasattr(parameter.distribution, "choices") for parameter in active)
    if is_categorical or len(numbers) < len(active):
        return _categorical_axis(name, parameters)
    return _numeric_axis(name, parameters)


def _is_number(parameter: Parameter) -> bool:
    return isinstance(parameter.value, int | float) and not isinstance(parameter.value, bool)


def _categorical_axis(name: str, parameters: Sequence[Parameter | None]) -> tuple[ParallelAxis, list[_Cell]]:
    labels = [None if parameter is None else _value_label(parameter) for parameter in parameters]
    categories = sorted({label for label in labels if label is not None})
    step = 1 / max(len(categories) - 1, 1)
    positions = {label: index * step if len(categories) > 1 else 0.5 for index, label in enumerate(categories)}
    cells: list[_Cell] = [(None, _INACTIVE) if label is None else (positions[label], label) for label in labels]
    return ParallelAxis(name, tuple((positions[label], label) for label in categories)), cells


def _numeric_axis(name: str, parameters: Sequence[Parameter | None]) -> tuple[ParallelAxis, list[_Cell]]:
    active = [parameter for parameter in parameters if parameter is not None]
    log = any(getattr(parameter.distribution, "log", False) for parameter in active)
    values = [None if parameter is None else float(str(parameter.value)) for parameter in parameters]
    known = [value for value in values if value is not None]
    scaled = [math.log10(value) if log else value for value in known]
    low, high = min(scaled), max(scaled)

    def position(value: float) -> float:
        return ((math.log10(value) if log else value) - low) / (high - low) if high > low else 0.5

    ticks = tuple((position(value), f"{value:.3g}") for value in dict.fromkeys((min(known), max(known))))
    cells: list[_Cell] = [(None, _INACTIVE) if value is None else (position(value), f"{value:.4g}") for value in values]
    return ParallelAxis(name, ticks), cells


def _value_label(parameter: Parameter) -> str:
    return parameter.value if isinstance(parameter.value, str) else json.dumps(parameter.value)


def draw_parallel(info: ParallelInfo) -> Figure:
    """Drawn as ordinary lines: plotly's own parallel coordinates need WebGL, which a locked-down browser lacks."""
    names = short_names([axis.name for axis in info.axes])
    figure = base_figure(460)
    low, high = info.lines[0].objective, info.lines[-1].objective
    across = list(range(len(info.axes)))
    for line in info.lines:
        quality = (line.objective - low) / (high - low) if high > low else 1.0
        figure.add_scatter(
            x=across,
            y=[_INACTIVE_POSITION if position is None else position for position in line.positions],
            mode="lines+markers",
            line={"color": sample_colorscale(_COLOUR_SCALE, [quality])[0], "width": 1.2 + 1.8 * quality},
            marker={"size": 4},
            opacity=0.25 + 0.65 * quality,
            text=[
                f"{escape_plotly(name)} = {escape_plotly(text)}" for name, text in zip(names, line.texts, strict=True)
            ],
            hovertemplate=f"<b>trial {line.trial}</b> {percent(line.objective)}<br>%{{text}}<extra></extra>",
            showlegend=False,
        )
    _add_axes(figure, info)
    _add_colour_bar(figure, low, high)
    labels = [escape_plotly(shorten(name, 26)).replace(".", ".<br>", 1) for name in names]
    figure.update_xaxes(
        tickvals=across, ticktext=labels, showgrid=False, range=[-0.45, len(across) - 0.55], tickangle=0
    )
    figure.update_yaxes(visible=False, range=[-0.2, 1.12])
    figure.update_layout(margin_t=70)
    return figure


def _add_axes(figure: Figure, info: ParallelInfo) -> None:
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
            text=_INACTIVE,
            x=-0.4,
            y=_INACTIVE_POSITION,
            xanchor="left",
            yshift=-9,
            showarrow=False,
            font_color=MUTED,
        )


def _add_colour_bar(figure: Figure, low: float, high: float) -> None:
    """An invisible point carries the colour bar."""
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
