"""The first box of the report: what was found, what to expect, what it cost."""

from __future__ import annotations

from bloodauto.report.info import OUTCOME_LABELS, OUTCOMES, RunInfo
from bloodauto.report.labels import duration, percent, shift_name, training_name
from bloodauto.report.markup import Markup, escaped, join, tag

#: The kind of shift in which all causes have moved at once.
_COMBINED_SHIFT = "combined"


def headline(run: RunInfo) -> Markup:
    return tag(
        "section",
        tag("p", summary_sentence(run), class_="verdict"),
        tag("div", _in_domain_tile(run), _external(run), _budget(run), _trials(run), class_="tiles"),
        class_="headline",
        id="summary",
    )


def summary_sentence(run: RunInfo) -> str:
    """One or two sentences: what came out of the run."""
    best = run.best
    if run.ensemble is not None and run.ensemble.members:
        size = len(run.ensemble.members)
        found = (
            f"An ensemble of {size} members"
            if size > 1
            else f"One network, {training_name(run.ensemble.members[0].name)},"
        )
        sentence = f"{found} was chosen"
        if run.test is not None and run.test.accuracy is not None:
            sentence += f"; it is right on {percent(run.test.accuracy)} of the held-out test images"
        return sentence + "."
    if best is not None:
        return (
            f"The incumbent is trial {best.number}, with an objective of {percent(best.value)} "
            "on validation images. No ensemble has been made yet."
        )
    if not run.trials:
        return "Nothing has been tried yet."
    if run.count("running") or run.count("waiting"):
        return "No trial has ended yet."
    return "No trial was completed: there is nothing to use. The reasons are listed under Failures."


def _tile(title: str, figure: str, *more: str | None) -> Markup:
    return tag("div", tag("h3", title), tag("p", figure, class_="figure"), *more, class_="tile")


def _tile_text(text: str) -> Markup:
    return tag("p", text)


def _in_domain_tile(run: RunInfo) -> Markup:
    title = "Expected in the same laboratory"
    test = run.test
    if test is not None and test.accuracy is not None:
        between = (
            f"between {percent(test.accuracy_low)} and {percent(test.accuracy_high)}, "
            if test.accuracy_low is not None and test.accuracy_high is not None
            else ""
        )
        images = f"{test.images} sealed images" if test.images is not None else "sealed images"
        return _tile(
            title,
            percent(test.accuracy),
            _tile_text(f"{between}from {images} that were opened once."),
            _tile_text(f"balanced {percent(test.balanced_accuracy)} · macro F1 {percent(test.macro_f1)}"),
        )
    score, of = _validation_score(run, "accuracy")
    if score is None:
        return _tile(title, "–", _tile_text("Not known yet."))
    return _tile(
        title, percent(score), _tile_text(f"at best: {of} on the validation images it was chosen by. No interval.")
    )


def _external(run: RunInfo) -> Markup:
    if run.test is not None and run.test.external is not None:
        found = run.test.external
        return _tile(
            "Expected at an external site",
            percent(found.mean, 0),
            _tile_text(
                f"between {percent(found.low, 0)} and {percent(found.high, 0)} in {percent(found.nominal_coverage, 0)} of "
                f"laboratories nobody has seen, from {found.simulated_sites} simulated ones."
            ),
            None
            if found.measured_coverage is None
            else _tile_text(
                f"Made without the kind of cause at work there, it held in {percent(found.measured_coverage, 0)} of them."
            ),
        )
    title = "On shifted images"
    if run.test is not None and run.test.shift:
        kinds = dict(run.test.shift)
        worst = min(kinds, key=lambda kind: kinds[kind])
        together = (
            _tile_text(f"{shift_name(_COMBINED_SHIFT).capitalize()}: {percent(kinds[_COMBINED_SHIFT])}.")
            if _COMBINED_SHIFT in kinds and worst != _COMBINED_SHIFT
            else None
        )
        return _tile(
            title,
            percent(sum(kinds.values()) / len(kinds)),
            _tile_text(f"on average over {len(kinds)} kinds; worst: {shift_name(worst)}, {percent(kinds[worst])}."),
            together,
            _tile_text("Simulated on the held-out test images; a real other lab can be worse."),
        )
    score, of = _validation_score(run, "shift")
    if score is None:
        return _tile(title, "–", _tile_text("Not known yet."))
    return _tile(title, percent(score), _tile_text(f"{of}, on shifted views of its validation images."))


def _validation_score(run: RunInfo, metric: str) -> tuple[float | None, str]:
    if run.ensemble is not None and metric in dict(run.ensemble.scores):
        return dict(run.ensemble.scores)[metric], "the ensemble"
    if run.best is not None and run.best.metric(metric) is not None:
        return run.best.metric(metric), f"trial {run.best.number}"
    return None, ""


def _budget(run: RunInfo) -> Markup:
    spent, given = run.spent_device_seconds, run.budget_device_seconds
    if given is None or given <= 0:
        return _tile("Budget", duration(spent, run.device), _tile_text("spent; what was given is not known."))
    share = 0.0 if spent is None else spent / given
    bar = tag("div", tag("span", "", style=f"width:{100 * min(share, 1):.1f}%"), class_="bar")
    typed = f" (typed as {run.budget})" if run.budget else ""
    text = f"{duration(spent or 0.0, run.device)} spent of {duration(given, run.device)}{typed}."
    return _tile("Budget", percent(share, 0), bar, _tile_text(text))


def _trials(run: RunInfo) -> Markup:
    chips = [
        tag("li", tag("i", "", class_=f"dot {outcome}"), f"{run.count(outcome)} {OUTCOME_LABELS[outcome]}")
        for outcome in OUTCOMES
        if run.count(outcome)
    ]
    more = tag("ul", *chips, class_="chips") if chips else escaped(None)
    return _tile("Trials", str(len(run.trials)), join([more]))
