"""Figures: which classes are confused, and whether confidence agrees with accuracy."""

from __future__ import annotations

from dataclasses import dataclass

from bloodauto.report.figures.style import ACCENT, MUTED, Figure, NoFigure, base_figure
from bloodauto.report.run_info import RunInfo
from bloodauto.run.artifacts import ReliabilityBin


@dataclass(frozen=True)
class ConfusionInfo:
    """A confusion matrix.

    Attributes:
        classes: names in the order of rows and columns.
        counts: images by true class (row) and predicted class (column).
        source: which model and which images.
    """

    classes: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    source: str

    @property
    def fractions(self) -> tuple[tuple[float, ...], ...]:
        """Each row divided by its sum; zeros for a class without images."""
        return tuple(tuple(count / max(sum(row), 1) for count in row) for row in self.counts)


@dataclass(frozen=True)
class ReliabilityInfo:
    """A reliability diagram.

    Attributes:
        bins: in ascending confidence.
        ece: expected calibration error, 0-1, as the run computed it.
        source: which model and which images.
    """

    bins: tuple[ReliabilityBin, ...]
    ece: float
    source: str


def confusion_info(run: RunInfo) -> ConfusionInfo | NoFigure:
    """Of the held-out test set where it was evaluated, else of the validation images."""
    test = run.held_out_test
    if test is not None:
        return ConfusionInfo(test.classes, test.confusion, "the ensemble on the held-out test images")
    if run.validation is None:
        return NoFigure("Neither a test result nor validation figures of a complete trial are there.")
    figures, source = run.validation
    known, size = run.class_names, len(figures.confusion)
    classes = known if len(known) == size else tuple(str(index) for index in range(size))
    images = sum(sum(row) for row in figures.confusion)
    return ConfusionInfo(classes, figures.confusion, f"{source}, on {images} validation images")


def reliability_info(run: RunInfo) -> ReliabilityInfo | NoFigure:
    """Of the validation images, as the run recorded it."""
    if run.validation is None:
        return NoFigure("No validation figures of a complete trial are there.")
    figures, source = run.validation
    images = sum(entry.images for entry in figures.reliability)
    return ReliabilityInfo(figures.reliability, figures.ece, f"{source}, on {images} validation images")


def draw_reliability(info: ReliabilityInfo) -> Figure:
    """Accuracy over confidence; below the diagonal the confidence is too high."""
    figure = base_figure(400, x_title="confidence", y_title="accuracy")
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
        hovertemplate="confidence %{x:.1%}<br>accuracy %{y:.1%}<br>%{customdata} images<extra></extra>",
    )
    figure.update_xaxes(tickformat=".0%", range=[-0.03, 1.06])
    figure.update_yaxes(tickformat=".0%", range=[-0.03, 1.06])
    return figure
