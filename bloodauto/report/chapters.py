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
from bloodauto.report.figures.risk_coverage import draw_risk, risk_info
from bloodauto.report.figures.simulated_sites import draw_laboratories, laboratories_info
from bloodauto.report.figures.style import Absent
from bloodauto.report.info import RunInfo
from bloodauto.report.labels import percent
from bloodauto.report.markup import Markup, join, tag

Info = TypeVar("Info")

_IN_LABORATORIES = (
    "Each point is one simulated laboratory with sealed test images of its own. The band is the interval for another "
    "laboratory, the line the accuracy at home."
)


@dataclass(frozen=True)
class Chapter:
    """``figures``: (id of the element it is drawn into, drawing)."""

    name: str
    title: str
    content: Markup
    figures: tuple[tuple[str, go.Figure], ...] = ()


class _Page:
    """Collects the figures of one chapter while its text is written."""

    def __init__(self) -> None:
        self.figures: list[tuple[str, go.Figure]] = []

    def plot(self, name: str, info: Info | Absent, draw: Callable[[Info], go.Figure], hint: str = "") -> Markup:
        """The place of a figure below its ``hint``, or the reason why there is none."""
        if isinstance(info, Absent):
            return tag("p", info.why, class_="absent")
        self.figures.append((f"plot-{name}", draw(info)))
        place = tag("div", "", class_="plot", id=f"plot-{name}")
        return join([tag("p", hint, class_="hint"), place]) if hint else place


def chapters(run: RunInfo) -> list[Chapter]:
    """All chapters, in the order of the page."""
    found = []
    for name, title, write in (
        ("progress", "Progress", _progress),
        ("trials", "Trials", _trials),
        ("mattered", "What mattered", _mattered),
        ("learning", "Learning curves", _learning),
        ("ensemble", "Ensemble", _ensemble),
        ("mistakes", "Mistakes", _mistakes),
        ("elsewhere", "Elsewhere", _elsewhere),
        ("failures", "Failures", lambda run, page: sections.failures(run)),
        ("data", "Data", lambda run, page: sections.data(run)),
        ("settings", "Settings", lambda run, page: sections.settings(run)),
        ("next", "How to go on", lambda run, page: sections.next_steps(run)),
    ):
        page = _Page()
        content = write(run, page)
        found.append(Chapter(name, title, content, tuple(page.figures)))
    return found


def _progress(run: RunInfo, page: _Page) -> Markup:
    hint = "Each trial stands where the ledger stood when it ended; pruned ones show the last objective they had."
    return join(
        [
            page.plot("progress", progress_info(run), draw_progress, hint),
            tag("h3", "Where the budget went"),
            page.plot("budget", budget_info(run), draw_budget),
        ]
    )


def _trials(run: RunInfo, page: _Page) -> Markup:
    front = places.front_table(run.front)
    return sections.trial_table(run) if front is None else join([front, tag("h3", "All"), sections.trial_table(run)])


def _mattered(run: RunInfo, page: _Page) -> Markup:
    importance = importance_info(run)
    names: tuple[str, ...] = ()
    hint = ""
    if not isinstance(importance, Absent):
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


def _learning(run: RunInfo, page: _Page) -> Markup:
    info = learning_info(run)
    rungs = not isinstance(info, Absent) and info.rungs
    hint = "Dotted lines are the pruner's rungs: there the weaker trials were stopped." if rungs else ""
    return page.plot("learning", info, draw_learning, hint)


def _ensemble(run: RunInfo, page: _Page) -> Markup:
    student = student_table(run.student)
    return join(
        [
            page.plot("ensemble", ensemble_info(run), draw_ensemble),
            sections.ensemble_table(run),
            *([tag("h3", "Distilled"), student] if student is not None else []),
        ]
    )


def _mistakes(run: RunInfo, page: _Page) -> Markup:
    confusion, reliability = confusion_info(run), reliability_info(run)
    of = ["" if isinstance(info, Absent) else f"Of {info.source}." for info in (confusion, reliability)]
    first = _halves(
        ("What is taken for what", page.plot("confusion", confusion, draw_confusion, of[0])),
        ("Can its confidence be believed?", page.plot("reliability", reliability, draw_reliability, of[1])),
    )
    second = _halves(
        ("When it is not sure", page.plot("risk", risk_info(run), draw_risk, sections.sureness_words(run))),
        (
            "How far its confidence is off",
            sections.calibration_errors(run) or tag("p", "Not known yet.", class_="absent"),
        ),
    )
    return join([first, second])


def _elsewhere(run: RunInfo, page: _Page) -> Markup:
    scatter, shift = scatter_info(run), shift_info(run)
    compared = by_kind = ""
    if not isinstance(scatter, Absent) and scatter.rank_correlation is not None:
        compared = (
            f"Rank correlation {scatter.rank_correlation:.2f} over complete trials: "
            "the nearer to 1, the better clean accuracy alone would have chosen."
        )
    if not isinstance(shift, Absent):
        by_kind = f"The sealed test images after each kind of shift; {percent(shift.clean)} as they are."
    expected = _halves(
        ("What to expect", sections.elsewhere_words(run) or tag("p", "Not known yet.", class_="absent")),
        (
            "In simulated laboratories",
            page.plot("laboratories", laboratories_info(run), draw_laboratories, _IN_LABORATORIES),
        ),
    )
    halves = _halves(
        ("By kind of shift", page.plot("shift", shift, draw_shift, by_kind)),
        ("Objective and clean accuracy", page.plot("scatter", scatter, draw_scatter, compared)),
    )
    known = [places.target_words(run.target), places.labs_table(run.labs)]
    return join([expected, *(one for one in known if one is not None), halves])


def _halves(*halves: tuple[str, Markup]) -> Markup:
    return tag(
        "div", *(tag("div", tag("h3", title), content, class_="half") for title, content in halves), class_="halves"
    )
