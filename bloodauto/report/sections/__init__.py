"""The report's sections: text, tables and the places of figures."""

from __future__ import annotations

from collections.abc import Callable

from bloodauto.report.markup import Markup
from bloodauto.report.run_info import RunInfo
from bloodauto.report.sections import results, run_record, search
from bloodauto.report.sections.page import FigureCollector, Section

_Writer = Callable[[RunInfo, FigureCollector], Markup | None]


def _without_figures(write: Callable[[RunInfo], Markup | None]) -> _Writer:
    return lambda run, _figures: write(run)


#: (id, title, what writes it), in the order of the page.
_SECTIONS: tuple[tuple[str, str, _Writer], ...] = (
    ("data", "Data", _without_figures(run_record.data)),
    ("errors", "Errors and confidence", results.errors),
    ("pictures", "Images", _without_figures(results.prediction_pictures)),
    ("external", "External sites", results.external),
    ("progress", "Progress", search.progress),
    ("ensemble", "Ensemble", results.ensemble),
    ("augmentation", "Augmentation", _without_figures(results.augmentation)),
    ("trials", "Trials", _without_figures(search.trials)),
    ("importance", "Importance", search.importance),
    ("learning", "Learning curves", search.learning),
    ("failures", "Failures", _without_figures(search.failures)),
    ("recipe", "Recipe", _without_figures(run_record.recipe)),
    ("settings", "Settings", _without_figures(run_record.settings)),
    ("next", "Reproduce and go on", _without_figures(run_record.next_steps)),
)


def write_sections(run: RunInfo) -> list[Section]:
    """The sections of a run's report that have content."""
    written = []
    for name, title, write in _SECTIONS:
        figures = FigureCollector()
        content = write(run, figures)
        if content:
            written.append(Section(name, title, content, tuple(figures.figures)))
    return written
