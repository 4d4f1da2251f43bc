"""Which cell types are taken for which, and whether a stated confidence can be believed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from bloodauto.report.figures.style import ACCENT, MUTED, NoFigure, base_figure, escape_plotly
from bloodauto.report.info import RunInfo, ValidationPredictions
from bloodauto.report.labels import shorten


@dataclass(frozen=True)
class ConfusionInfo:
    """``counts``: images, true class by row, predicted class by column; ``source``: which images and which model."""

    classes: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    source: str

    @property
    def shares(self) -> tuple[tuple[float, ...], ...]:
        """Each row divided by its sum; zeros for a class without images."""
        return tuple(tuple(count / max(sum(row), 1) for count in row) for row in self.counts)


@dataclass(frozen=True)
class ReliabilityBin:
    """Images whose highest probability lies in one tenth: their mean, the share that was right, how many."""

    confidence: float
    accuracy: float
    images: int


@dataclass(frozen=True)
class ReliabilityInfo:
    """``ece``: expected calibration error, the bins' mean |confidence - accuracy| weighted by their images."""

    bins: tuple[ReliabilityBin, ...]
    ece: float
    source: str


def confusion_info(run: RunInfo) -> ConfusionInfo | NoFigure:
    """Of the held-out test where it was opened, else on validation images of the ensemble, else of the best trial."""
    if run.test is not None and run.test.confusion:
        classes = run.test.classes or tuple(str(index) for index in range(len(run.test.confusion)))
        return ConfusionInfo(classes, run.test.confusion, "the ensemble on the held-out test images")
    if run.predictions is None:
        return NoFigure("Neither a test result nor validation predictions of a complete trial are there.")
    count = run.predictions.probabilities.shape[1]
    matrix = np.zeros((count, count), dtype=np.int64)
    np.add.at(matrix, (run.predictions.labels, run.predictions.probabilities.argmax(axis=1)), 1)
    known = run.class_names
    classes = known if len(known) == count else tuple(str(index) for index in range(count))
    return ConfusionInfo(classes, tuple(map(tuple, matrix.tolist())), _validation(run.predictions))


def draw_confusion(info: ConfusionInfo) -> go.Figure:
    """Colour by share of the row, number by count; rows and columns in the order of the classes."""
    size = len(info.classes)
    figure = base_figure(150 + 40 * size, x_title="predicted", y_title="true")
    names = [escape_plotly(shorten(name, 18)) for name in info.classes]
    shares = info.shares
    hover = [
        [
            f"{escape_plotly(info.classes[row])} taken for {escape_plotly(info.classes[column])}<br>"
            f"{info.counts[row][column]} images, {shares[row][column]:.1%} of the row"
            for column in range(size)
        ]
        for row in range(size)
    ]
    index = list(range(size))
    figure.add_heatmap(
        x=index,
        y=index,
        z=shares,
        text=[[str(count) if count else "" for count in row] for row in info.counts],
        texttemplate="%{text}",
        customdata=hover,
        hovertemplate="%{customdata}<extra></extra>",
        # Few errors among many right answers must still be seen, hence the steep beginning.
        colorscale=[[0, "#f7f8fa"], [0.02, "#f6dfe4"], [0.2, "#d98b9d"], [1, ACCENT]],
        zmin=0,
        zmax=1,
        showscale=False,
        xgap=2,
        ygap=2,
    )
    figure.update_xaxes(tickvals=index, ticktext=names, tickangle=-45, showgrid=False, showline=False)
    figure.update_yaxes(tickvals=index, ticktext=names, autorange="reversed", showgrid=False)
    figure.update_layout(margin_t=12)
    return figure


def reliability_info(run: RunInfo, *, bins: int = 10) -> ReliabilityInfo | NoFigure:
    """Equal-width bins of the highest probability (Guo et al., arXiv 1706.04599), empty ones left out."""
    if run.predictions is None:
        return NoFigure("No validation predictions of a complete trial are there.")
    confidence = run.predictions.probabilities.max(axis=1)
    right = run.predictions.probabilities.argmax(axis=1) == run.predictions.labels
    place = np.clip((confidence * bins).astype(int), 0, bins - 1)
    found = tuple(
        ReliabilityBin(float(confidence[chosen].mean()), float(right[chosen].mean()), int(chosen.sum()))
        for chosen in (place == index for index in range(bins))
        if chosen.any()
    )
    ece = sum(entry.images * abs(entry.confidence - entry.accuracy) for entry in found) / len(right)
    return ReliabilityInfo(found, float(ece), _validation(run.predictions))


def draw_reliability(info: ReliabilityInfo) -> go.Figure:
    """Share right over confidence; on the diagonal the confidence can be believed, below it is too high."""
    figure = base_figure(400, x_title="confidence", y_title="share right")
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", name="perfect", line={"color": MUTED, "dash": "dash"}, hoverinfo="skip"
    )
    largest = max(entry.images for entry in info.bins)
    figure.add_scatter(
        x=[entry.confidence for entry in info.bins],
        y=[entry.accuracy for entry in info.bins],
        mode="lines+markers",
        name=f"measured, calibration error {info.ece:.1%}",
        line={"color": ACCENT, "width": 2},
        marker={"size": [7 + 15 * (entry.images / largest) ** 0.5 for entry in info.bins]},
        customdata=[entry.images for entry in info.bins],
        hovertemplate="confidence %{x:.1%}<br>right %{y:.1%}<br>%{customdata} images<extra></extra>",
    )
    figure.update_xaxes(tickformat=".0%", range=[-0.03, 1.06])
    figure.update_yaxes(tickformat=".0%", range=[-0.03, 1.06])
    return figure


def _validation(predictions: ValidationPredictions) -> str:
    return f"{predictions.source}, on {len(predictions.labels)} validation images"
