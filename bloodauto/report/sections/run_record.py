"""Sections about the run itself: its data, its settings, what is missing, and what to do next."""

from __future__ import annotations

import json
import shlex
from collections import Counter

from bloodauto.report.formatting import count, duration, percent
from bloodauto.report.markup import Content, Markup, absent, join, table, tag
from bloodauto.report.run_info import RunInfo
from bloodauto.run.artifacts import CleaningReport, CleaningRow, Fingerprint, SplitsFile
from bloodauto.run.study_reader import mask_passwords

MAX_CLEANED_IMAGES = 40
MAX_NOTES = 40


def notes(run: RunInfo) -> Markup | None:
    """What is missing or broken and what that means; None when nothing is."""
    if not run.notes:
        return None
    listed = [tag("li", tag("code", note.source), " ", note.text) for note in run.notes[:MAX_NOTES]]
    more = len(run.notes) - len(listed)
    return tag("ul", *listed, tag("li", f"{more} more files could not be read.") if more > 0 else None, class_="notes")


def data(run: RunInfo) -> Markup:
    """The images: source, classes, sites, splits, and what cleaning did."""
    parts: list[Content] = [
        absent("The images have not been described yet.") if run.fingerprint is None else _images(run.fingerprint)
    ]
    if run.splits is not None:
        parts.append(_splits(run.splits))
    parts.append(absent("There is no record of the cleaning.") if run.cleaning is None else _cleaning(run.cleaning))
    return join(parts)


def _images(fingerprint: Fingerprint) -> Markup:
    excluded = f" Cleaning excluded {count(fingerprint.excluded)} of them." if fingerprint.excluded else ""
    size = f"{fingerprint.height_px} x {fingerprint.width_px} px"
    parts: list[Content] = [
        tag(
            "p", f"{count(fingerprint.images)} images of {size}, from ", tag("code", fingerprint.source), f".{excluded}"
        )
    ]
    largest = max(fingerprint.classes.values(), default=0)
    rows = [
        (name, count(images), percent(images / max(fingerprint.images, 1)), _count_bar(images, largest))
        for name, images in fingerprint.classes.items()
    ]
    parts.append(table(("class", "images", "fraction", ""), rows, numeric=(1, 2)))
    if fingerprint.sites:
        sites = ", ".join(f"{name} ({count(images)})" for name, images in fingerprint.sites.items())
        parts.append(tag("p", f"Sites: {sites}"))
    return join(parts)


def _count_bar(images: int, largest: int) -> Markup:
    return tag("div", tag("span", "", style=f"width:{100 * images / max(largest, 1):.1f}%"), class_="bar wide")


def _splits(splits: SplitsFile) -> Markup:
    sizes = ", ".join(f"{part.name.replace('_', ' ')} ({count(len(part.images))})" for part in splits.parts)
    explanation = "Fold 0 is the validation fold of every trial."
    notes = tag("ul", *(tag("li", note) for note in splits.notes)) if splits.notes else None
    return join([tag("p", f"Splits: {sizes}. {explanation}"), notes])


def _cleaning(report: CleaningReport) -> Markup:
    findings = [row for row in report.rows if row.has_finding]
    if not findings:
        return tag("p", f"Cleaning checked {count(len(report.rows))} images and found nothing.")
    counts = Counter((row.finding, row.action) for row in findings).most_common()
    listed = findings[:MAX_CLEANED_IMAGES]
    title = "These images" if len(listed) == len(findings) else f"The first {len(listed)} of them"
    return join(
        [
            tag("p", f"Cleaning checked {count(len(report.rows))} images and has findings for {count(len(findings))}:"),
            table(
                ("finding", "action", "images"),
                [(finding, action, count(images)) for (finding, action), images in counts],
                numeric=(2,),
            ),
            tag("details", tag("summary", title), _cleaning_table(listed)),
        ]
    )


def _cleaning_table(rows: list[CleaningRow]) -> Markup:
    cells = [(row.name, row.label, row.finding, row.action, row.reason) for row in rows]
    return table(("image", "label", "finding", "action", "reason"), cells)


def settings(run: RunInfo) -> Markup:
    """What the run was asked for. Passwords in URLs are masked."""
    if run.settings is None:
        return absent("The settings are unknown.")
    rows = [(tag("code", name), _setting_text(value)) for name, value in run.settings.model_dump(mode="json").items()]
    return table(("setting", "value"), rows)


def _setting_text(value: object) -> str:
    return mask_passwords(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def next_steps(run: RunInfo) -> Markup:
    """The commands that the run itself left, else those that fit its state."""
    if run.next_steps.strip():
        return tag("pre", run.next_steps.strip())
    return tag("ul", *(tag("li", text, ": ", tag("code", command)) for text, command in next_commands(run)))


def next_commands(run: RunInfo) -> list[tuple[str, str]]:
    """(what it does, command) for the state of the run."""
    root = shlex.quote(str(run.root))
    commands = []
    if run.held_out_test is None or run.count("running"):
        commands.append((f"Resume the search{_unspent(run)}", f"bloodauto search --resume --run {root}"))
    if run.ensemble is not None:
        commands.append(("Export the model", f"bloodauto export-best --run {root} --output best"))
    commands.append(("Look at single trials", f"bloodauto dashboard --run {root}"))
    commands.append(("Write this page again", f"bloodauto report --run {root}"))
    return commands


def _unspent(run: RunInfo) -> str:
    spent, budget = run.spent_device_seconds, run.budget_device_seconds
    if spent is None or budget is None:
        return ""
    return f" ({duration(max(budget - spent, 0.0), run.device)} unspent)"
