"""The parts of the report that are text and tables."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import asdict

from bloodauto.report.info import OUTCOME_LABELS, OUTCOMES, CandidateCounts, RunInfo, SelectionBiasInfo, TrialInfo
from bloodauto.report.labels import duration, percent, shorten, training_name
from bloodauto.report.markup import Markup, escaped, join, table, tag
from bloodauto.shift.external_estimate import ESTIMATE_SCOPE, coverage_text, external_estimate_text

MAX_TRIALS = 30
MAX_FAILURES = 50
MAX_CLEANED_IMAGES = 40
MAX_NOTES = 40


def notes(run: RunInfo) -> Markup | None:
    """What is missing or broken and what that means; ``None`` when nothing is."""
    if not run.notes:
        return None
    listed = [tag("li", tag("code", note.source), " ", note.text) for note in run.notes[:MAX_NOTES]]
    left = len(run.notes) - len(listed)
    return tag("ul", *listed, tag("li", f"{left} more of the kind.") if left > 0 else None, class_="notes")


def ranked(trials: tuple[TrialInfo, ...]) -> list[TrialInfo]:
    """Complete trials first, then the others in the order of their outcomes; within each the best objective first."""
    order = {outcome: index for index, outcome in enumerate(OUTCOMES)}
    return sorted(
        trials,
        key=lambda trial: (order[trial.outcome], -trial.value if trial.value is not None else 0.0, trial.number),
    )


def trial_table(run: RunInfo) -> Markup:
    if not run.trials:
        return tag("p", "No trial has been started.", class_="absent")
    rows = []
    started = tuple(trial for trial in run.trials if not trial.never_started)
    for trial in ranked(started)[:MAX_TRIALS]:
        rows.append(
            (
                str(trial.number),
                tag(
                    "span",
                    tag("i", "", class_=f"dot {trial.outcome}"),
                    OUTCOME_LABELS[trial.outcome],
                    class_="whole",
                    title=trial.reason,
                ),
                percent(trial.value),
                percent(trial.metric("accuracy")),
                percent(trial.metric("shift")),
                str(trial.intermediate[-1][0]) if trial.intermediate else "–",
                duration(trial.device_seconds, run.device),
                "–" if trial.parameters is None else f"{trial.parameters / 1e6:.1f} M",
                tag("span", shorten(trial.backbone or "–", 28), class_="whole"),
                tag("span", shorten(trial.origin, 34), title=trial.origin),
                tag("code", trial.recipe_id[:8], title=trial.recipe_id) if trial.recipe_id else "–",
            )
        )
    shown = table(
        (
            "trial",
            "outcome",
            "objective",
            "clean",
            "shifted",
            "epochs",
            "cost",
            "weights",
            "backbone",
            "origin",
            "recipe",
        ),
        rows,
        numeric=(0, 2, 3, 4, 5, 6, 7),
    )
    left, refused = len(started) - len(rows), len(run.trials) - len(started)
    hints = [
        f"{left} more trials are in the study." if left else "",
        f"{refused} more were suggested that the budget could not carry; they were not started." if refused else "",
    ]
    return join([shown, *(tag("p", hint, class_="hint") for hint in hints if hint)])


def failures(run: RunInfo) -> Markup:
    failed = [trial for trial in run.trials if trial.outcome == "failed"]
    if not failed:
        return tag("p", "No trial failed.", class_="absent")
    reasons = Counter(trial.reason or "no reason recorded" for trial in failed)
    summary = tag(
        "ul",
        *(
            tag("li", tag("i", "", class_="dot failed"), f"{count} failed: {reason}")
            for reason, count in reasons.most_common()
        ),
        class_="chips",
    )
    rows = [
        (
            str(trial.number),
            trial.reason or "–",
            trial.message or "–",
            str(trial.intermediate[-1][0]) if trial.intermediate else "–",
            duration(trial.device_seconds, run.device),
            shorten(trial.origin, 40),
        )
        for trial in failed[:MAX_FAILURES]
    ]
    shown = table(("trial", "reason", "message", "epochs", "cost", "origin"), rows, numeric=(0, 3, 4))
    return join([summary, shown])


def data(run: RunInfo) -> Markup:
    """The images: where from, classes, labs, splits, and what cleaning did."""
    return join([_images(run), _cleaning(run)])


def _images(run: RunInfo) -> Markup:
    print_ = run.fingerprint
    if print_ is None:
        return tag("p", "The images have not been described yet.", class_="absent")
    size = f", {print_.height_px} x {print_.width_px} px" if print_.height_px and print_.width_px else ""
    excluded = f" {print_.excluded} of them were left out by the cleaning." if print_.excluded else ""
    parts = [tag("p", f"{print_.images:,} images{size}, from ", tag("code", print_.source), f".{excluded}")]
    if print_.classes:
        largest = max(count for _, count in print_.classes)
        rows = [
            (name, f"{count:,}", percent(count / max(print_.images, 1)), _count_bar(count, largest))
            for name, count in print_.classes
        ]
        parts.append(table(("class", "images", "share", ""), rows, numeric=(1, 2)))
    if print_.sites:
        parts.append(tag("p", "Labs: " + ", ".join(f"{name or 'unknown'} ({count:,})" for name, count in print_.sites)))
    if run.split_sizes:
        parts.append(tag("p", "Parts: " + ", ".join(f"{name} ({count:,})" for name, count in run.split_sizes)))
    if run.split_notes:
        parts.append(tag("ul", *(tag("li", note) for note in run.split_notes)))
    return join(parts)


def _count_bar(count: int, largest: int) -> Markup:
    return tag("div", tag("span", "", style=f"width:{100 * count / max(largest, 1):.1f}%"), class_="bar wide")


def _cleaning(run: RunInfo) -> Markup:
    if run.cleaning is None:
        return tag("p", "There is no record of the cleaning.", class_="absent")
    if not run.cleaning.rows:
        return tag("p", f"Cleaning looked at {run.cleaning.images:,} images and found nothing to mend.")
    intro = tag("p", f"Cleaning looked at {run.cleaning.images:,} images; {len(run.cleaning.rows):,} were noted:")
    summary = table(
        ("finding", "action", "images"), [(f, a, f"{n:,}") for f, a, n in run.cleaning.counts], numeric=(2,)
    )
    listed = run.cleaning.rows[:MAX_CLEANED_IMAGES]
    rows = [(row.name, row.label, row.finding, row.action, row.reason) for row in listed]
    title = "These images" if len(listed) == len(run.cleaning.rows) else f"The first {len(listed)} of them"
    return join(
        [
            intro,
            summary,
            tag("details", tag("summary", title), table(("image", "label", "finding", "action", "reason"), rows)),
        ]
    )


def settings(run: RunInfo) -> Markup:
    if not run.settings:
        return tag("p", "The settings are not known.", class_="absent")
    return table(("setting", "value"), [(tag("code", key), value) for key, value in run.settings])


def next_steps(run: RunInfo) -> Markup:
    """The run's own advice where it left some, else the commands that fit its state."""
    if run.next_steps.strip():
        return tag("pre", run.next_steps.strip())
    steps = [tag("li", text, ": ", tag("code", command)) for text, command in next_commands(run)]
    return tag("ul", *steps)


def next_commands(run: RunInfo) -> list[tuple[str, str]]:
    """(what it does, command) that fit the run's state."""
    root = shlex.quote(str(run.root))
    commands = []
    spent, given = run.spent_device_seconds, run.budget_device_seconds
    if run.test is None or run.count("running"):
        left = f" ({duration(max(given - spent, 0.0), run.device)} left)" if given is not None and spent else ""
        commands.append((f"Go on where it stopped{left}", f"bloodauto search --resume --run {root}"))
    if run.ensemble is not None:
        commands.append(("Make one file to use elsewhere", f"bloodauto export-best --run {root} --output best"))
    commands.append(("Look at the trials one by one", f"bloodauto dashboard --run {root}"))
    commands.append(("Make this page again", f"bloodauto report --run {root}"))
    return commands


def _score(name: str, score: float | None) -> str:
    """A share as percent; a loss, which has no upper end, as it is."""
    return percent(score) if name not in ("loss", "nll") else "–" if score is None else f"{score:.3f}"


def ensemble_table(run: RunInfo) -> Markup | None:
    if run.ensemble is None or not run.ensemble.members:
        return None
    metrics = [name for name, _ in run.ensemble.scores]
    rows = []
    for member in sorted(run.ensemble.members, key=lambda member: -member.weight):
        in_domain = dict(member.scores)
        rows.append(
            (
                training_name(member.name),
                f"{member.weight:.3f}",
                member.kind,
                "–" if member.trial is None else str(member.trial),
                "–" if member.parameters is None else f"{member.parameters:,}",
                *(_score(name, in_domain.get(name)) for name in metrics),
            )
        )
    together = [_score(name, score) for name, score in run.ensemble.scores]
    rows.append((tag("b", "together"), "1", "", "", "", *(tag("b", score) for score in together)))
    headings = ("member", "weight", "kind", "trial", "weights", *(name.replace("_", " ") for name in metrics))
    shown = table(headings, rows, numeric=range(1, len(headings)))
    temperature = run.ensemble.temperature
    calibrated = "" if temperature is None else f" Probabilities are calibrated with temperature {temperature:.3f}"
    if calibrated:
        calibrated += " and a scale and a bias for each class." if run.ensemble.per_class else "."
    chosen = f"Chosen by {run.ensemble.metric.replace('_', ' ')}." if run.ensemble.metric else ""
    words = chosen + calibrated + _candidates_text(run.ensemble.candidate_counts)
    hint = tag("p", words, class_="hint") if words else escaped(None)
    return join([shown, hint, _selection_bias_text(run.ensemble.selection_bias)])


def _candidates_text(candidate_counts: CandidateCounts | None) -> str:
    if candidate_counts is None:
        return ""
    text = f" Candidates: {candidate_counts.trials} trials and {candidate_counts.refits:.0f} longer trainings"
    if candidate_counts.pruned:
        text += (
            f", and {candidate_counts.evaluated} trials that were stopped early ({candidate_counts.promising} of {candidate_counts.pruned} of "
            "these were promising)"
        )
    return text + "."


def _selection_bias_text(selection_bias: SelectionBiasInfo | None) -> Markup:
    """What the best trial's score is worth."""
    if selection_bias is None:
        return tag(
            "p",
            "How far the best trial's score is luck is unknown: it takes two trials and a recipe that was trained twice.",
            class_="hint",
        )
    refits = (
        ""
        if selection_bias.refits is None
        else f" Its refits, which train longer, reached {percent(selection_bias.refits)} on average."
    )
    return tag(
        "p",
        f"The best of {selection_bias.trials} trials had an objective of {percent(selection_bias.best)}. The best of many was lucky: without its "
        f"luck {percent(selection_bias.shrunk)} is to be expected of it.{refits} From seed to seed the objective varies by "
        f"{percent(selection_bias.noise)} (one standard deviation, from {selection_bias.noise_degrees_of_freedom} comparisons); smaller differences "
        "between trials say nothing.",
    )


def abstention_text(run: RunInfo) -> str:
    """What the exported rule marks, in a few sentences; empty where there is none."""
    found = run.ood
    if found is not None:
        synthetic_ood = ", ".join(f"{percent(marked, 0)} of {kind}" for kind, marked in found.synthetic_ood)
        return (
            "Surest first is: nearest to the trained classes in the networks' features, and answered with the least entropy. "
            f"The large points are the exported rule: it answers {percent(found.in_domain.coverage)} of {found.in_domain.images} images "
            f"held out, and {percent(found.external.coverage)} of {found.external.images} that simulated sites show; "
            f"'bloodauto predict' marks the others. Of pictures made from such images it marks {synthetic_ood}."
        )
    rule = None if run.ensemble is None else run.ensemble.abstention
    if rule is None:
        return ""
    said = f"The large points are the exported threshold: it answers {percent(rule.clean.coverage)} of the clean images"
    if rule.shifted is not None:
        said += f" and {percent(rule.shifted.coverage)} of the shifted views"
    return said + "; 'bloodauto predict' marks the others as not sure."


def calibration_table(run: RunInfo) -> Markup | None:
    """Expected calibration error on clean images and shifted views; of the held-out test where it was opened."""
    test = run.test
    scores = {} if run.ensemble is None else dict(run.ensemble.scores)
    rows = [
        (name, percent(clean), percent(shifted))
        for name, clean, shifted in (
            ("validation, fitted on these", scores.get("ece"), scores.get("ece_shifted")),
            ("held-out test", None if test is None else test.ece, None if test is None else test.ece_shifted),
        )
        if clean is not None or shifted is not None
    ]
    return table(("calibration error", "clean", "shifted"), rows, numeric=(1, 2)) if rows else None


def external_estimate_section(run: RunInfo) -> Markup | None:
    """The expectation in one sentence, and what it does and does not cover."""
    test = run.test
    if test is None or test.external is None or None in (test.accuracy, test.accuracy_low, test.accuracy_high):
        return None
    fields = {**asdict(test), "external": asdict(test.external)}
    return join(
        [
            tag("p", tag("b", external_estimate_text(fields) + ".")),
            tag("p", f"{ESTIMATE_SCOPE} {coverage_text(fields['external'])}"),
        ]
    )
