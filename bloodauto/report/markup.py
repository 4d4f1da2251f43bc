"""HTML that is escaped by construction: whatever is not already ``Markup`` becomes text."""

from __future__ import annotations

import html
from collections.abc import Iterable


class Markup(str):
    """Text that is HTML already. Only ``tag`` and ``join`` make it from other values."""

    __slots__ = ()


Content = str | None


def escaped(content: Content) -> Markup:
    """``Markup`` as it is, other text escaped, ``None`` as nothing."""
    if isinstance(content, Markup):
        return content
    return Markup("" if content is None else html.escape(content))


def join(contents: Iterable[Content]) -> Markup:
    return Markup("".join(escaped(content) for content in contents))


def tag(name: str, *contents: Content, **attributes: str) -> Markup:
    """``tag("td", "a < b", class_="n")`` -> ``<td class="n">a &lt; b</td>``; ``_`` in attribute names becomes ``-``."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(value)}"' for key, value in attributes.items()
    )
    return Markup(f"<{name}{written}>{join(contents)}</{name}>")


def table(headings: Iterable[str], rows: Iterable[Iterable[Content]], *, numeric: Iterable[int] = ()) -> Markup:
    """A table that scrolls sideways by itself on a narrow screen; columns in ``numeric`` stand to the right."""
    right = set(numeric)

    def cells(kind: str, contents: Iterable[Content]) -> Markup:
        return join(tag(kind, cell, **({"class_": "n"} if at in right else {})) for at, cell in enumerate(contents))

    head = tag("thead", tag("tr", cells("th", headings)))
    body = tag("tbody", *(tag("tr", cells("td", row)) for row in rows))
    return tag("div", tag("table", head, body), class_="scroll", tabindex="0")
