"""The report: one HTML file that needs nothing else: no network, no other file, no program."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from bloodauto.report.figures.style import plain_figure, plotly_javascript
from bloodauto.report.markup import Content, Markup, join, tag
from bloodauto.report.read import read_run
from bloodauto.report.run_info import RunInfo
from bloodauto.report.sections import write_sections
from bloodauto.report.sections.page import Section
from bloodauto.report.sections.run_record import notes
from bloodauto.report.sections.summary import summary
from bloodauto.run.directory import RunDirectory
from bloodauto.run.files import check_output_file, write_text


def write_report(
    root: str | Path,
    output: str | Path | None = None,
    *,
    local_time: Callable[[], datetime] = lambda: datetime.now().astimezone(),
) -> Path:
    """Writes the report of a run, finished or not.

    The page holds plotly.js once, forbids itself any network access and any script but its own (a content security policy
    with their hashes), and shows whatever text the run's files contain as text.

    Args:
        root: the run directory.
        output: the HTML file; None: ``report.html`` in the run.
        local_time: the clock for the page's footer.

    Returns:
        The path of the file.

    Raises:
        RunError: ``root`` is no run directory, or one of another format version.
        UserError: ``output`` cannot be written.

    Example:
        >>> import bloodauto
        >>> bloodauto.write_report("runs/first", "report.html").name
        'report.html'
    """
    path = RunDirectory(Path(root)).report if output is None else Path(output)
    if output is not None:
        check_output_file(path)
    run = read_run(Path(root))
    write_text(path, render(run, written_at=local_time()))
    return path


def render(run: RunInfo, *, written_at: datetime) -> str:
    """The whole page as text.

    Args:
        run: what to show.
        written_at: for the footer.
    """
    missing = notes(run)
    source = "" if run.fingerprint is None else run.fingerprint.source
    opening = [
        summary(run),
        None if missing is None else tag("section", tag("h2", "What is missing"), missing, id="missing"),
    ]
    return document(
        DocumentHeading("bloodauto report", run.root.resolve().name, (source, str(run.root))),
        opening,
        write_sections(run),
        written_at=written_at,
    )


@dataclass(frozen=True)
class DocumentHeading:
    """The head of a page.

    Attributes:
        kind: what kind of page it is.
        title: its own title.
        about: what it is about; empty texts are left out.
    """

    kind: str
    title: str
    about: tuple[str, ...]


def document(
    heading: DocumentHeading, opening: Sequence[Content], parts: Sequence[Section], *, written_at: datetime
) -> str:
    """A page that holds everything it needs and forbids itself any network access and any script but its own.

    Args:
        heading: its head.
        opening: what stands before the sections.
        parts: the sections, with their figures.
        written_at: for the footer.
    """
    here = Path(__file__).parent
    drawn = {name: plain_figure(figure) for part in parts for name, figure in part.figures}
    page_script = _script((here / "page.js").read_text(encoding="utf-8"))
    scripts = [_script(plotly_javascript()), page_script] if drawn else [page_script]
    policy = "; ".join(
        (
            "default-src 'none'",
            "style-src 'unsafe-inline'",
            "img-src data: blob:",
            "script-src " + " ".join(f"'sha256-{_hash(script)}'" for script in scripts),
        )
    )
    # Inside a script element nothing is unescaped, and nothing may look like its end.
    figures = Markup(json.dumps(drawn).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
    head = tag(
        "head",
        Markup('<meta charset="utf-8">'),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        Markup('<meta name="color-scheme" content="light dark">'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        # Without an icon of its own the page would ask a server for one.
        Markup('<link rel="icon" href="data:,">'),
        tag("title", f"{heading.title} · {heading.kind}"),
        tag("style", Markup((here / "page.css").read_text(encoding="utf-8"))),
    )
    body = tag(
        "body",
        _header(heading),
        tag("nav", tag("ul", *(tag("li", tag("a", part.title, href=f"#{part.name}")) for part in parts))),
        tag(
            "main",
            *opening,
            *(tag("section", tag("h2", part.title), part.content, id=part.name) for part in parts),
        ),
        tag("footer", f"Written by bloodauto on {written_at:%Y-%m-%d at %H:%M %Z}."),
        tag("script", figures, type="application/json", id="figures"),
        *(tag("script", script) for script in scripts),
    )
    return str(join([Markup("<!DOCTYPE html>\n"), tag("html", head, body, lang="en"), Markup("\n")]))


def _header(heading: DocumentHeading) -> Markup:
    return tag(
        "header",
        tag(
            "div",
            tag("p", heading.kind, class_="kind"),
            tag("h1", heading.title),
            tag("p", " · ".join(part for part in heading.about if part), class_="about"),
        ),
    )


def _script(text: str) -> Markup:
    # The hash is taken over the text as the browser's parser sees it, which has no carriage returns.
    return Markup(text.replace("\r\n", "\n").replace("\r", "\n"))


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
