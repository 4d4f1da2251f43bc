"""The report's sections: text, tables and the places of figures."""

from __future__ import annotations

from collections.abc import Callable

from bloodauto.report.markup import Markup
from bloodauto.report.run_info import RunInfo
from bloodauto.report.sections import results, run_record, search
from bloodauto.report.sections.page import FigureCollector, Section

_Writer = Callable[[RunInfo, FigureCollector], Markup]


def _without_figures(write: Callable[[RunInfo], Markup]) -> _Writer:
    return lambda run, _figures: write(run)


#: (id, title, what writes it), in the order of the page.
_SECTIONS: tuple[tuple[str, str, _Writer], ...] = (
    ("progress", "Progress", search.progress),
    ("trials", "Trials", _without_figures(search.trials)),
    ("importance", "Importance", search.importance),
    ("learning", "Learning curves", search.learning),
    ("ensemble", "Ensemble", results.ensemble),
    ("errors", "Errors and confidence", results.errors),
    ("external", "External sites", results.external),
    ("failures", "Failures", _without_figures(search.failures)),
    ("data", "Data", _without_figures(run_record.data)),
    ("settings", "Settings", _without_figures(run_record.settings)),
    ("next", "Next steps", _without_figures(run_record.next_steps)),
)


def write_sections(run: RunInfo) -> list[Section]:
    """All sections of a run's report."""
    written = []
    for name, title, write in _SECTIONS:
        figures = FigureCollector()
        content = write(run, figures)
        written.append(Section(name, title, content, tuple(figures.figures)))
    return written
