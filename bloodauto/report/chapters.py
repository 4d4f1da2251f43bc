"""The report's chapters, each a heading, text and tables, and the figures whose places it holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import plotly.graph_objects as go

from bloodauto.report import sections
from bloodauto.report import site_tables as places
from bloodauto.report.distilled import student_table
from bloodauto.report.figures.budget import budget_info, draw_budget
from bloodauto.report.figures.confusion import confusion_info, draw_confusion, draw_reliability, reliability_info
from bloodauto.report.figures.ensemble import draw_ensemble, ensemble_info
from bloodauto.report.figures.external_estimate import draw_scatter, draw_shift, scatter_info, shift_info
from bloodauto.report.figures.importance import draw_importance, importance_info
from bloodauto.report.figures.learning import draw_learning, learning_info
from bloodauto.report.figures.parallel import draw_parallel, parallel_info
from bloodauto.report.figures.progress import draw_progress, progress_info
from bloodauto.report.figures.risk_coverage import draw_risk_coverage, risk_coverage_info
from bloodauto.report.figures.simulated_sites import draw_simulated_sites, simulated_sites_info
from bloodauto.report.figures.style import NoFigure
from bloodauto.report.info import RunInfo
from bloodauto.report.labels import percent
from bloodauto.report.markup import Markup, join, tag

Info = TypeVar("Info")

_SIMULATED_SITES_HINT = (
    "Each point is one simulated laboratory with held-out test images of its own. The band is the interval for another "
    "laboratory, the line the accuracy at home."
)


@dataclass(frozen=True)
class Chapter:
    """``figures``: (id of the element it is drawn into, drawing)."""

    name: str
    title: str
    content: Markup
    figures: tuple[tuple[str, go.Figure], ...] = ()


class _FigureCollector:
    """Collects the figures of one chapter while its text is written."""

    def __init__(self) -> None:
        self.figures: list[tuple[str, go.Figure]] = []

    def plot(self, name: str, info: Info | NoFigure, draw: Callable[[Info], go.Figure], hint: str = "") -> Markup:
        """The place of a figure below its ``hint``, or the reason why there is none."""
        if isinstance(info, NoFigure):
            return tag("p", info.reason, class_="absent")
        self.figures.append((f"plot-{name}", draw(info)))
        place = tag("div", "", class_="plot", id=f"plot-{name}")
        return join([tag("p", hint, class_="hint"), place]) if hint else place


def chapters(run: RunInfo) -> list[Chapter]:
    """All chapters, in the order of the page."""
    found = []
    for name, title, write in (
        ("progress", "Progress", _progress),
        ("trials", "Trials", _trials),
        ("importance", "Parameter importance", _importance),
        ("learning", "Learning curves", _learning),
        ("ensemble", "Ensemble", _ensemble),
        ("errors", "Errors and confidence", _errors),
        ("external", "Elsewhere", _external),
        ("failures", "Failures", lambda run, page: sections.failures(run)),
        ("data", "Data", lambda run, page: sections.data(run)),
        ("settings", "Settings", lambda run, page: sections.settings(run)),
        ("next", "Next steps", lambda run, page: sections.next_steps(run)),
    ):
        page = _FigureCollector()
        content = write(run, page)
        found.append(Chapter(name, title, content, tuple(page.figures)))
    return found


def _progress(run: RunInfo, page: _FigureCollector) -> Markup:
    hint = "Each trial stands where the ledger stood when it ended; pruned ones show the last objective they had."
    return join(
        [
            page.plot("progress", progress_info(run), draw_progress, hint),
            tag("h3", "Where the budget went"),
            page.plot("budget", budget_info(run), draw_budget),
        ]
    )


def _trials(run: RunInfo, page: _FigureCollector) -> Markup:
    pareto_front = places.pareto_table(run.pareto_front)
    return (
        sections.trial_table(run)
        if pareto_front is None
        else join([pareto_front, tag("h3", "All"), sections.trial_table(run)])
    )


def _importance(run: RunInfo, page: _FigureCollector) -> Markup:
    importance = importance_info(run)
    names: tuple[str, ...] = ()
    hint = ""
    if not isinstance(importance, NoFigure):
        names = tuple(name for name, _ in importance.rows)
        hint = (
            f"PED-ANOVA over {importance.complete_trials} complete trials: how far the values of the best "
            f"{importance.top_trials} differ from those of all. With few trials this is a hint, no proof."
        )
    return join(
        [
            page.plot("importance", importance, draw_importance, hint),
            tag("h3", "Trials through their parameters"),
            # Too many axes for a phone: it scrolls sideways by itself, as the tables do.
            tag("div", page.plot("parallel", parallel_info(run, names), draw_parallel), class_="scroll roomy"),
        ]
    )


def _learning(run: RunInfo, page: _FigureCollector) -> Markup:
    info = learning_info(run)
    rungs = not isinstance(info, NoFigure) and info.rungs
    hint = "Dotted lines are the pruner's rungs: there the weaker trials were stopped." if rungs else ""
    return page.plot("learning", info, draw_learning, hint)


def _ensemble(run: RunInfo, page: _FigureCollector) -> Markup:
    student = student_table(run.student)
    return join(
        [
            page.plot("ensemble", ensemble_info(run), draw_ensemble),
            sections.ensemble_table(run),
            *([tag("h3", "Distilled"), student] if student is not None else []),
        ]
    )


def _errors(run: RunInfo, page: _FigureCollector) -> Markup:
    confusion, reliability = confusion_info(run), reliability_info(run)
    of = ["" if isinstance(info, NoFigure) else f"Of {info.source}." for info in (confusion, reliability)]
    first = _two_columns(
        ("What is taken for what", page.plot("confusion", confusion, draw_confusion, of[0])),
        ("Can its confidence be believed?", page.plot("reliability", reliability, draw_reliability, of[1])),
    )
    second = _two_columns(
        (
            "When it is not sure",
            page.plot("risk", risk_coverage_info(run), draw_risk_coverage, sections.abstention_text(run)),
        ),
        (
            "How far its confidence is off",
            sections.calibration_table(run) or tag("p", "Not known yet.", class_="absent"),
        ),
    )
    return join([first, second])


def _external(run: RunInfo, page: _FigureCollector) -> Markup:
    scatter, shift = scatter_info(run), shift_info(run)
    compared = by_kind = ""
    if not isinstance(scatter, NoFigure) and scatter.rank_correlation is not None:
        compared = (
            f"Rank correlation {scatter.rank_correlation:.2f} over complete trials: "
            "the nearer to 1, the better clean accuracy alone would have chosen."
        )
    if not isinstance(shift, NoFigure):
        by_kind = f"The held-out test images after each kind of shift; {percent(shift.clean)} as they are."
    expected = _two_columns(
        (
            "External performance estimate",
            sections.external_estimate_section(run) or tag("p", "Not known yet.", class_="absent"),
        ),
        (
            "At simulated sites",
            page.plot("simulated_sites", simulated_sites_info(run), draw_simulated_sites, _SIMULATED_SITES_HINT),
        ),
    )
    columns = _two_columns(
        ("By corruption group", page.plot("shift", shift, draw_shift, by_kind)),
        ("Objective and clean accuracy", page.plot("scatter", scatter, draw_scatter, compared)),
    )
    known = [places.target_text(run.target), places.site_table(run.sites)]
    return join([expected, *(one for one in known if one is not None), columns])


def _two_columns(*columns: tuple[str, Markup]) -> Markup:
    return tag(
        "div", *(tag("div", tag("h3", title), content, class_="half") for title, content in columns), class_="halves"
    )
