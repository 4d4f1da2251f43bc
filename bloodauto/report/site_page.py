"""The page of ``bloodauto evaluate``: a model on labelled images of a site, with pictures of its mistakes."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from bloodauto.report.figures.confusion import ConfusionInfo, ReliabilityInfo, draw_reliability
from bloodauto.report.figures.risk_coverage import RiskCoverageInfo, draw_risk_coverage
from bloodauto.report.formatting import DASH, count, percent
from bloodauto.report.html import DocumentHeading, document
from bloodauto.report.markup import Content, Markup, absent, hint, join, table, tag
from bloodauto.report.sections.page import FigureCollector, Section, two_columns
from bloodauto.report.sections.pictures import confusion_table, prediction_sections
from bloodauto.run.artifacts import Measured, PredictionPictures, SiteEvaluation


def render_site_page(evaluation: SiteEvaluation, pictures: PredictionPictures, *, written_at: datetime) -> str:
    """The page as text; it needs no other file and no network.

    Args:
        evaluation: the figures.
        pictures: of the site's images.
        written_at: for the footer.
    """
    return document(
        DocumentHeading("bloodauto evaluation", Path(evaluation.source).name, (evaluation.source, evaluation.model)),
        [_summary(evaluation)],
        [_classes(evaluation, pictures), _pictures(evaluation, pictures), _confidence(evaluation)],
        written_at=written_at,
    )


def _summary(evaluation: SiteEvaluation) -> Markup:
    rows: list[tuple[Content, ...]] = [
        ("accuracy", *_measured(evaluation.accuracy)),
        ("balanced accuracy", *_measured(evaluation.balanced_accuracy)),
        ("macro F1", *_measured(evaluation.macro_f1)),
        ("expected calibration error", percent(evaluation.ece), ""),
        ("negative log-likelihood", f"{evaluation.loss:.3f} nats", ""),
        ("marked for a person", percent(evaluation.flagged), ""),
    ]
    return tag(
        "section",
        tag("h2", "Measured at this site"),
        tag("p", evaluation.comparison_text()),
        table(("", "measured", "95 % interval"), rows, numeric={1, 2}),
        hint(interval_text(evaluation)),
        *_missing(evaluation),
        id="measured",
    )


def interval_text(evaluation: SiteEvaluation) -> str:
    """How many images the figures are of, and what the intervals presume."""
    images = f"{count(evaluation.images)} images."
    if evaluation.groups is None:
        return (
            f"{images} The intervals take images as independent; name patients or slides in the data if they are not."
        )
    few = " So few groups give intervals that are too narrow." if evaluation.groups < 10 else ""
    return f"{images} Their {count(evaluation.groups)} patients or slides were resampled as wholes.{few}"


def _missing(evaluation: SiteEvaluation) -> list[Content]:
    parts: list[Content] = []
    if evaluation.absent_classes:
        names = ", ".join(evaluation.absent_classes)
        parts.append(hint(f"No image of: {names}. Balanced accuracy and macro F1 are of the other classes."))
    renamed = {name: target for name, target in evaluation.class_mapping.items() if target not in (None, name)}
    if renamed:
        pairs = ", ".join(f"{name} is {target}" for name, target in renamed.items())
        parts.append(hint(f"Class names: {pairs}."))
    return parts


def _measured(value: Measured) -> tuple[str, str]:
    return percent(value.value), f"{100 * value.low:.1f}-{100 * value.high:.1f}"


def _classes(evaluation: SiteEvaluation, pictures: PredictionPictures) -> Section:
    rows: list[tuple[Content, ...]] = [
        (entry.name, count(entry.images), *((DASH, "") if entry.recall is None else _measured(entry.recall)))
        for entry in evaluation.recalls
    ]
    info = ConfusionInfo(evaluation.classes, evaluation.confusion, "the site's images")
    content: list[Content] = [
        two_columns(
            ("Recall", table(("class", "images", "recall", "95 % interval"), rows, numeric={1, 2, 3})),
            ("Confusion matrix", confusion_table(info, pictures.confusion)),
        )
    ]
    if evaluation.unknown_classes:
        unknown: list[tuple[Content, ...]] = [
            (
                entry.name,
                count(entry.images),
                percent(entry.flagged),
                ", ".join(f"{name} {number}" for name, number in entry.predicted.items()),
            )
            for entry in evaluation.unknown_classes
        ]
        content += [
            tag("h3", "Classes that the model does not have"),
            hint("Every prediction for these images is wrong; they are in no figure above. They should be marked."),
            table(("class", "images", "marked", "predicted as"), unknown, numeric={1, 2}),
        ]
    return Section("classes", "Classes", join(content))


def _confidence(evaluation: SiteEvaluation) -> Section:
    figures = FigureCollector()
    reliability = ReliabilityInfo(evaluation.reliability, evaluation.ece, "the site's images")
    curve: Markup | None = absent("The export has no rule for marking images.")
    if evaluation.selective is not None:
        info = RiskCoverageInfo((("images of this site", evaluation.selective),))
        curve = figures.add(
            "risk",
            info,
            draw_risk_coverage,
            f"The large point is the exported threshold: {percent(evaluation.selective.coverage)} of the images get a "
            f"prediction, {percent(evaluation.selective.accuracy)} of them correctly.",
        )
    columns = two_columns(
        ("Reliability", figures.add("reliability", reliability, draw_reliability)), ("Abstention", curve)
    )
    return Section(
        "confidence",
        "Confidence",
        join([columns]),
        tuple(figures.figures),
    )


def _pictures(evaluation: SiteEvaluation, pictures: PredictionPictures) -> Section:
    wrong = evaluation.images - sum(row[index] for index, row in enumerate(evaluation.confusion))
    if not wrong:
        text = "Every image was predicted correctly."
    else:
        shown = len(pictures.confident_mistakes)
        text = f"{count(wrong)} of {count(evaluation.images)} images were predicted wrongly; {count(shown)} of these are shown."
    return Section("mistakes", "Images", join([tag("p", text), prediction_sections(pictures)]))
