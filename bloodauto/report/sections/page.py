"""Building blocks of the report's sections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from bloodauto.report.figures.style import Figure, NoFigure
from bloodauto.report.markup import Content, Markup, hint, join, tag

Info = TypeVar("Info")


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        name: the id of its element.
        title: its heading.
        content: text, tables and the places of figures.
        figures: (id of the element it is drawn into, figure).
    """

    name: str
    title: str
    content: Markup
    figures: tuple[tuple[str, Figure], ...] = ()


class FigureCollector:
    """Collects the figures of one section while its text is written."""

    def __init__(self) -> None:
        self.figures: list[tuple[str, Figure]] = []

    def add(
        self, name: str, info: Info | NoFigure, draw: Callable[[Info], Figure], explanation: str = ""
    ) -> Markup | None:
        """Draws a figure.

        Args:
            name: unique in the page.
            info: what to draw.
            draw: draws it.
            explanation: how to read it; shown above it.

        Returns:
            The figure's place; None where it cannot be drawn.
        """
        if isinstance(info, NoFigure):
            return None
        self.figures.append((f"plot-{name}", draw(info)))
        element = tag("div", "", class_="plot", id=f"plot-{name}")
        return join([hint(explanation), element]) if explanation else element


def two_columns(*columns: tuple[str, Markup | None]) -> Markup | None:
    """(heading, content) beside each other, below each other on a narrow screen; those without content are left out."""
    shown = [tag("div", tag("h3", title), content, class_="half") for title, content in columns if content]
    if not shown:
        return None
    return tag("div", *shown, class_="halves")


def titled(title: str, content: Content) -> Markup | None:
    """A heading and what is below it; None without content."""
    return join([tag("h3", title), content]) if content else None


def joined(parts: Sequence[Content]) -> Markup | None:
    """The parts that have content; None where none has."""
    return join(parts) if any(parts) else None


def chips(items: list[tuple[str, str]]) -> Markup:
    """(trial state, text) as a row of coloured labels."""
    return tag("ul", *(tag("li", tag("i", "", class_=f"dot {state}"), text) for state, text in items), class_="chips")
