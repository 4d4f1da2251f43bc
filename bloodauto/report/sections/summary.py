"""The first section of the report: the result, what accuracy to expect, what it cost."""

from __future__ import annotations

from bloodauto.report.formatting import DASH, count, duration, percent, shift_name, training_name
from bloodauto.report.markup import Markup, join, tag
from bloodauto.report.run_info import STATE_LABELS, TRIAL_STATES, RunInfo
from bloodauto.report.sections.page import chips
from bloodauto.run.artifacts import ExternalEstimate, HeldOutTest

_UNKNOWN = "Not known yet."


def summary(run: RunInfo) -> Markup:
    """One sentence and four tiles."""
    return tag(
        "section",
        tag("p", summary_sentence(run), class_="verdict"),
        tag("div", _in_domain_tile(run), _external_tile(run), _budget_tile(run), _trials_tile(run), class_="tiles"),
        class_="headline",
        id="summary",
    )


def summary_sentence(run: RunInfo) -> str:
    """One or two sentences: what came out of the run."""
    if run.ensemble is not None:
        members = run.ensemble.members
        selected = (
            f"An ensemble of {len(members)} members"
            if len(members) > 1
            else f"One network, {training_name(members[0].name)},"
        )
        test = run.held_out_test
        accuracy = "" if test is None else f"; its accuracy on the held-out test set is {percent(test.accuracy)}"
        return f"{selected} was selected{accuracy}."
    incumbent = run.incumbent
    if incumbent is not None:
        return (
            f"The incumbent is trial {incumbent.number}, with an objective of {percent(incumbent.objective)} "
            "on validation images. No ensemble has been selected yet."
        )
    if not run.trials:
        return "No trial has started yet."
    if run.count("running") or run.count("waiting"):
        return "No trial has ended yet."
    return "No trial completed, so there is no model. The reasons are listed under Failures."


def _tile(title: str, value: str, *more: str | None) -> Markup:
    return tag("div", tag("h3", title), tag("p", value, class_="figure"), *more, class_="tile")


def _text(text: str) -> Markup:
    return tag("p", text)


def _in_domain_tile(run: RunInfo) -> Markup:
    title, test = "Expected at the training site", run.held_out_test
    if test is not None:
        return _tile(
            title,
            percent(test.accuracy),
            _text(
                f"between {percent(test.accuracy_low)} and {percent(test.accuracy_high)} (95 %), "
                f"from {count(test.images)} held-out test images, predicted once."
            ),
            _text(f"balanced accuracy {percent(test.balanced_accuracy)} · macro F1 {percent(test.macro_f1)}"),
        )
    score, source = _validation_score(run, "accuracy")
    if score is None:
        return _tile(title, DASH, _text(_UNKNOWN))
    return _tile(
        title,
        percent(score),
        _text(f"at best: {source} on the validation images it was selected on. No interval."),
    )


def _external_tile(run: RunInfo) -> Markup:
    test = run.held_out_test
    if test is not None and test.external is not None:
        return _estimate_tile(test.external)
    if test is not None and test.shift:
        return _shift_tile(test)
    score, source = _validation_score(run, "shift")
    title = "On shifted images"
    if score is None:
        return _tile(title, DASH, _text(_UNKNOWN))
    return _tile(title, percent(score), _text(f"shift score of {source} on validation images."))


def _estimate_tile(estimate: ExternalEstimate) -> Markup:
    measured = estimate.measured_coverage
    return _tile(
        "Expected at an external site",
        percent(estimate.mean, 0),
        _text(
            f"between {percent(estimate.low, 0)} and {percent(estimate.high, 0)} at {percent(estimate.nominal_coverage, 0)} "
            f"of external sites, estimated from {estimate.simulated_sites} simulated ones."
        ),
        None
        if measured is None
        else _text(f"Measured coverage, with the factor at work left out of the estimate: {percent(measured, 0)}."),
    )


def _shift_tile(test: HeldOutTest) -> Markup:
    worst = min(test.shift, key=lambda group: test.shift[group])
    return _tile(
        "On shifted images",
        percent(test.shifted_accuracy),
        _text(
            f"accuracy on {count(test.shifted_images)} shifted test images; lowest: {shift_name(worst)}, "
            f"{percent(test.shift[worst])}."
        ),
        _text("Simulated from the held-out test images; a real external site can be worse."),
    )


def _validation_score(run: RunInfo, name: str) -> tuple[float | None, str]:
    if run.ensemble is not None:
        return run.ensemble.scores.known()[name], "the ensemble"
    trial = run.incumbent
    if trial is None:
        return None, ""
    return trial.clean_accuracy if name == "accuracy" else trial.shift_score, f"trial {trial.number}"


def _budget_tile(run: RunInfo) -> Markup:
    spent, budget = run.spent_device_seconds, run.budget_device_seconds
    if run.settings is None or budget is None:
        return _tile("Budget", duration(spent, run.device), _text("spent; the budget is unknown."))
    fraction = 0.0 if spent is None else spent / budget
    bar = tag("div", tag("span", "", style=f"width:{100 * min(fraction, 1):.1f}%"), class_="bar")
    spent_text = duration(0.0 if spent is None else spent, run.device)
    text = f"{spent_text} spent of {duration(budget, run.device)} ({run.settings.budget})."
    return _tile("Budget", percent(fraction, 0), bar, _text(text))


def _trials_tile(run: RunInfo) -> Markup:
    counts = [(state, f"{run.count(state)} {STATE_LABELS[state]}") for state in TRIAL_STATES if run.count(state)]
    return _tile("Trials", str(len(run.trials)), chips(list(counts)) if counts else join([]))
