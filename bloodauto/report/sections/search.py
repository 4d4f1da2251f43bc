"""Sections about the search: progress, trials, importance, learning curves, failures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from bloodauto.report.figures.budget import budget_info, draw_budget
from bloodauto.report.figures.importance import draw_importance, importance_info
from bloodauto.report.figures.learning import draw_learning, learning_info
from bloodauto.report.figures.parallel import draw_parallel, parallel_info
from bloodauto.report.figures.progress import draw_progress, progress_info
from bloodauto.report.figures.style import NoFigure
from bloodauto.report.formatting import DASH, duration, objective_value, percent, shorten, spaced, training_name
from bloodauto.report.markup import Content, Markup, hint, join, table, tag
from bloodauto.report.run_info import STATE_LABELS, TRIAL_STATES, RunInfo, TrialInfo
from bloodauto.report.sections.page import FigureCollector, chips, joined, titled
from bloodauto.run.artifacts import ParetoTrial
from bloodauto.run.study_attributes import initial_origin

MAX_TRIALS = 30
MAX_FAILURES = 50


def progress(run: RunInfo, figures: FigureCollector) -> Markup | None:
    """From the first trial to the ensemble, the best objective, and what the budget was spent on."""
    explanation = (
        "A trial's position is the total of the ledger when it ended; pruned trials show their last objective."
    )
    return joined(
        [
            ladder(run),
            figures.add("progress", progress_info(run), draw_progress, explanation),
            titled("What the budget was spent on", figures.add("budget", budget_info(run), draw_budget)),
        ]
    )


def ladder(run: RunInfo) -> Markup | None:
    """What each step of the search brought, from the first trial to the ensemble; None before a trial is complete."""
    complete = [trial for trial in run.trials if trial.state == "complete" and trial.objective is not None]
    if not complete:
        return None
    rows: list[tuple[Content, ...]] = [_trial_step("first complete trial", complete[0])]
    initial = [trial for trial in complete if trial.attributes.origin.startswith(initial_origin(""))]
    best_initial = max(initial, key=_objective_of, default=None)
    if best_initial is not None and best_initial is not complete[0]:
        rows.append(_trial_step("best initial configuration", best_initial))
    best = max(complete, key=_objective_of)
    if best not in (complete[0], best_initial):
        rows.append(_trial_step("best trial", best))
    if run.ensemble is not None:
        single, scores = run.ensemble.best_single, run.ensemble.scores
        steps = (
            ("best single network", training_name(single.name), single.scores),
            ("ensemble, calibrated", f"{len(run.ensemble.members)} members", scores),
        )
        rows += [(step, what, percent(known.shift), percent(known.accuracy)) for step, what, known in steps]
    explanation = (
        "On validation images, which the search chose by: the values of the later steps are a little too good."
    )
    shown = table(("step", "", "shift score", "clean accuracy"), rows, numeric=(2, 3))
    return join([tag("h3", "From the first trial to the ensemble"), hint(explanation), shown])


def _objective_of(trial: TrialInfo) -> float:
    return -1.0 if trial.objective is None else trial.objective


def _trial_step(step: str, trial: TrialInfo) -> tuple[Content, ...]:
    what = (
        f"trial {trial.number}, {trial.attributes.backbone}" if trial.attributes.backbone else f"trial {trial.number}"
    )
    return step, what, percent(trial.shift_score), percent(trial.clean_accuracy)


def trials(run: RunInfo) -> Markup | None:
    """The Pareto front, where there is one, and the best trials."""
    if not run.pareto_front:
        return trial_table(run)
    return join([pareto_table(run.pareto_front), titled("All trials", trial_table(run))])


def importance(run: RunInfo, figures: FigureCollector) -> Markup | None:
    """Which parameters matter, and every trial through them."""
    info = importance_info(run)
    names: tuple[str, ...] = ()
    explanation = ""
    if not isinstance(info, NoFigure):
        names = tuple(name for name, _ in info.rows)
        explanation = (
            f"PED-ANOVA over {info.complete_trials} complete trials: how far the parameter values of the best "
            f"{info.top_trials} differ from those of all. With few trials the estimate is rough."
        )
    parallel = figures.add("parallel", parallel_info(run, names), draw_parallel)
    # Too many axes for a phone: the figure scrolls sideways by itself, as the tables do.
    scrolling = None if parallel is None else tag("div", parallel, class_="scroll roomy")
    return joined(
        [
            figures.add("importance", info, draw_importance, explanation),
            titled("Trials and their parameters", scrolling),
        ]
    )


def learning(run: RunInfo, figures: FigureCollector) -> Markup | None:
    """Learning curves."""
    info = learning_info(run)
    has_rungs = not isinstance(info, NoFigure) and bool(info.rungs)
    explanation = "Dotted lines are the pruner's rungs, after which weaker trials were pruned." if has_rungs else ""
    return figures.add("learning", info, draw_learning, explanation)


def pareto_table(pareto_front: Sequence[ParetoTrial]) -> Markup:
    """The trials that no other dominates."""
    names = list(pareto_front[0].values)
    rows = [
        (str(trial.trial), trial.backbone, *(objective_value(name, trial.values.get(name)) for name in names))
        for trial in pareto_front
    ]
    headings = ("trial", "backbone", *map(spaced, names))
    explanation = (
        "Trials that no other dominates, the best in the primary objective first. The ensemble is made of these."
    )
    return join([tag("h3", "Pareto front"), hint(explanation), table(headings, rows, numeric=range(2, len(headings)))])


def ranked(run_trials: Sequence[TrialInfo]) -> list[TrialInfo]:
    """By state, complete ones first; within a state the highest objective first."""
    order = {state: index for index, state in enumerate(TRIAL_STATES)}
    return sorted(
        run_trials,
        key=lambda trial: (
            order[trial.state], 0.0 if trial.objective is None else -trial.objective, trial.number
        ),
    )  # fmt: skip


def trial_table(run: RunInfo) -> Markup | None:
    """The best trials that were started; None where none was."""
    started = [trial for trial in run.trials if not trial.never_started]
    if not started:
        return None
    rows = [_trial_row(trial, run.device) for trial in ranked(started)[:MAX_TRIALS]]
    headings = (
        "trial", "state", "objective", "clean", "shift", "epochs", "cost", "parameters", "backbone", "origin",
        "recipe",
    )  # fmt: skip
    shown = table(headings, rows, numeric=(0, 2, 3, 4, 5, 6, 7))
    more, unstarted = len(started) - len(rows), len(run.trials) - len(started)
    remarks = [
        f"{more} more trials are in the study." if more else "",
        f"{unstarted} more were suggested that did not fit into the budget; they were not started."
        if unstarted
        else "",
    ]
    return join([shown, *(hint(remark) for remark in remarks if remark)])


def _trial_row(trial: TrialInfo, device: str) -> tuple[Content, ...]:
    attributes = trial.attributes
    return (
        str(trial.number),
        tag(
            "span",
            tag("i", "", class_=f"dot {trial.state}"),
            STATE_LABELS[trial.state],
            class_="whole",
            title=attributes.reason,
        ),
        percent(trial.objective),
        percent(trial.clean_accuracy),
        percent(trial.shift_score),
        _epochs(trial),
        duration(trial.device_seconds, device),
        DASH if trial.result is None else f"{trial.result.parameters / 1e6:.1f} M",
        tag("span", shorten(attributes.backbone, 28) if attributes.backbone else DASH, class_="whole"),
        tag("span", shorten(attributes.origin, 34), title=attributes.origin),
        tag("code", attributes.recipe_id[:8], title=attributes.recipe_id) if attributes.recipe_id else DASH,
    )


def _epochs(trial: TrialInfo) -> str:
    return str(trial.curve[-1][0]) if trial.curve else DASH


def failures(run: RunInfo) -> Markup | None:
    """Failed trials and their reasons; None where none failed."""
    failed = [trial for trial in run.trials if trial.state == "failed"]
    if not failed:
        return None
    reasons = Counter(_or_dash(trial.attributes.reason) for trial in failed)
    rows = [
        (
            str(trial.number),
            _or_dash(trial.attributes.reason),
            _or_dash(trial.attributes.message),
            _epochs(trial),
            duration(trial.device_seconds, run.device),
            shorten(trial.attributes.origin, 40),
        )
        for trial in failed[:MAX_FAILURES]
    ]
    counts = chips([("failed", f"{number} failed: {reason}") for reason, number in reasons.most_common()])
    headings = ("trial", "reason", "message", "epochs", "cost", "origin")
    return join([counts, table(headings, rows, numeric=(0, 3, 4))])


def _or_dash(text: str) -> str:
    return text if text else DASH
