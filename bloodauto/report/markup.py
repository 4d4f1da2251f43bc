"""HTML elements from Python values: whatever is not ``markupsafe.Markup`` already is escaped."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from markupsafe import Markup, escape

__all__ = ["Content", "Markup", "absent", "hint", "join", "table", "tag"]

#: ``Markup`` is taken as it is, other text is escaped, None is nothing.
Content = str | None


def join(contents: Iterable[Content]) -> Markup:
    """One piece of HTML after the other.

    Example:
        >>> join(["a < b", None, Markup("<br>")])
        Markup('a &lt; b<br>')
    """
    return Markup("").join("" if content is None else content for content in contents)


def tag(name: str, *contents: Content, **attributes: str) -> Markup:
    """An element.

    Args:
        name: of the element.
        *contents: what is in it.
        **attributes: a trailing ``_`` is dropped from their names, any other becomes ``-``.

    Example:
        >>> tag("td", "a < b", class_="n")
        Markup('<td class="n">a &lt; b</td>')
    """
    written = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items()
    )
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(escape(name)), written, join(contents))


def table(
    headings: Iterable[str], rows: Iterable[Iterable[Content]], *, numeric: Collection[int] = frozenset()
) -> Markup:
    """A table that scrolls sideways by itself on a narrow screen.

    Args:
        headings: of the columns.
        rows: their cells.
        numeric: columns that are aligned to the right.
    """

    def cells(kind: str, contents: Iterable[Content]) -> Markup:
        return join(
            tag(kind, cell, class_="n") if index in numeric else tag(kind, cell) for index, cell in enumerate(contents)
        )

    head = tag("thead", tag("tr", cells("th", headings)))
    body = tag("tbody", *(tag("tr", cells("td", row)) for row in rows))
    return tag("div", tag("table", head, body), class_="scroll", tabindex="0")


def absent(text: str) -> Markup:
    """Stands where something is not known, and says why."""
    return tag("p", text, class_="absent")


def hint(text: str) -> Markup:
    """How to read what stands beside it."""
    return tag("p", text, class_="hint")
