"""Sections about the run itself: its data, its settings, what is missing, and what to do next."""

from __future__ import annotations

import json
import shlex
from collections import Counter

from bloodauto.report.formatting import count, duration
from bloodauto.report.markup import Content, Markup, hint, join, table, tag
from bloodauto.report.run_info import RunInfo
from bloodauto.report.sections.page import joined, titled
from bloodauto.report.sections.pictures import class_rows, cleaned_pictures
from bloodauto.run.artifacts import CleaningReport, CleaningRow, DataPictures, Fingerprint, SplitsFile
from bloodauto.run.study_reader import mask_passwords

MAX_CLEANED_IMAGES = 40
MAX_NOTES = 40
#: Settings of the run's own directory.
_NOT_REPRODUCED = ("storage",)


def notes(run: RunInfo) -> Markup | None:
    """What is missing or broken and what that means; None when nothing is."""
    if not run.notes:
        return None
    listed = [tag("li", tag("code", note.source), " ", note.text) for note in run.notes[:MAX_NOTES]]
    more = len(run.notes) - len(listed)
    return tag("ul", *listed, tag("li", f"{more} more files could not be read.") if more > 0 else None, class_="notes")


def data(run: RunInfo) -> Markup | None:
    """The images: source, classes with pictures, sites, splits, and what cleaning did, with pictures."""
    shown = run.data_pictures
    parts: list[Content] = [None if run.fingerprint is None else _images(run.fingerprint, shown)]
    if run.splits is not None:
        parts.append(_splits(run.splits))
    if run.cleaning is not None:
        parts.append(_cleaning(run.cleaning))
    if shown is not None:
        parts.append(titled("Images in which cleaning found something", cleaned_pictures(shown.cleaned)))
    return joined(parts)


def _images(fingerprint: Fingerprint, shown: DataPictures | None) -> Markup:
    excluded = f" Cleaning excluded {count(fingerprint.excluded)} of them." if fingerprint.excluded else ""
    size = f"{fingerprint.height_px} x {fingerprint.width_px} px"
    parts: list[Content] = [
        tag(
            "p", f"{count(fingerprint.images)} images of {size}, from ", tag("code", fingerprint.source), f".{excluded}"
        )
    ]
    parts.append(class_rows(DataPictures(classes={}, cleaned=()) if shown is None else shown, fingerprint.classes))
    if fingerprint.sites:
        sites = ", ".join(f"{name} ({count(images)})" for name, images in fingerprint.sites.items())
        parts.append(tag("p", f"Sites: {sites}"))
    return join(parts)


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


def recipe(run: RunInfo) -> Markup | None:
    """The exact recipe of the member with the largest weight, or of the incumbent."""
    if not run.recipe.strip():
        return None
    whose = "incumbent" if run.ensemble is None else "member with the largest weight"
    title = f"Everything that the training of the {whose} needed; 'bloodauto train' takes it as a file."
    return join([hint(title), tag("details", tag("summary", "Show the recipe"), tag("pre", run.recipe.strip()))])


def settings(run: RunInfo) -> Markup | None:
    """What the run was asked for. Passwords in URLs are masked."""
    if run.settings is None:
        return None
    rows = [(tag("code", name), _setting_text(value)) for name, value in run.settings.model_dump(mode="json").items()]
    return table(("setting", "value"), rows)


def _setting_text(value: object) -> str:
    return mask_passwords(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def next_steps(run: RunInfo) -> Markup:
    """How to do the search again, and the commands that the run itself left, else those that fit its state."""
    again = reproduce_command(run)
    if run.next_steps.strip():
        steps = tag("pre", run.next_steps.strip())
    else:
        steps = tag("ul", *(tag("li", text, ": ", tag("code", command)) for text, command in next_commands(run)))
    parts: list[Content] = []
    if again:
        digest = "" if run.fingerprint is None else f" The images have the SHA-256 digest {run.fingerprint.digest}."
        parts = [
            tag("h3", "The same search again"),
            tag("pre", again),
            hint(
                "Splits, shifted images and every single training are the same. Which trials fit into the budget depends "
                f"on the machine.{digest}"
            ),
            tag("h3", "Next"),
        ]
    return join([*parts, steps])


def reproduce_command(run: RunInfo) -> str:
    """The command that starts the same search; empty where the settings are unknown."""
    if run.settings is None:
        return ""
    arguments = ["bloodauto", "search"]
    for name, field in type(run.settings).model_fields.items():
        value = getattr(run.settings, name)
        option = "--" + name.replace("_", "-")
        if name in _NOT_REPRODUCED or (
            not field.is_required() and value == field.get_default(call_default_factory=True)
        ):
            continue
        if isinstance(value, bool):
            arguments.append(option if value else "--no-" + option.removeprefix("--"))
        elif isinstance(value, tuple):
            arguments += [word for item in value for word in (option, shlex.quote(mask_passwords(str(item))))]
        elif value is not None:
            arguments += [option, shlex.quote(mask_passwords(str(value)))]
    return " ".join([*arguments, "--run", "runs/again"])


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
