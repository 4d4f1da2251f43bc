"""Each figure's tuple is compared with what the run holds; each drawing is made and looked at for its traces."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
import plotly.graph_objects as go
import pytest

from bloodauto.report.figures import (
    budget,
    confusion,
    ensemble,
    importance,
    learning,
    parallel,
    progress,
    risk_coverage,
    shift,
    simulated_sites,
)
from bloodauto.report.figures.style import NoFigure
from bloodauto.report.run_info import Parameter, RunInfo, TrialInfo, TrialState
from bloodauto.run.artifacts import LedgerCharge, OodEvaluation, ReliabilityBin, SyntheticOodResult, ValidationFigures
from bloodauto.run.study_attributes import TrialAttributes
from bloodauto.testing.run_factory import make_selective


def drawn(figure: go.Figure) -> dict:
    """Traces by name; that the figure can be written as JSON is part of drawing it."""
    figure.to_json()
    return {trace.name: trace for trace in figure.data}


@pytest.fixture
def empty(tmp_path_factory: pytest.TempPathFactory) -> RunInfo:
    return RunInfo(root=tmp_path_factory.getbasetemp())


def trial_info(
    number: int, state: TrialState, objective: float | None, *, device_seconds: float | None = None, **fields: Any
) -> TrialInfo:
    return TrialInfo(number, state, objective, attributes=TrialAttributes(device_seconds=device_seconds), **fields)


def some_trials(objectives: list[float]) -> tuple[TrialInfo, ...]:
    return tuple(trial_info(number, "complete", item, device_seconds=10.0) for number, item in enumerate(objectives))


def test_progress_shows_trials_at_the_ledgers_sum(finished_info: RunInfo) -> None:
    info = progress.progress_info(finished_info)
    assert isinstance(info, progress.ProgressInfo)
    stood = {charge.phase: charge.spent_device_seconds for charge in finished_info.ledger}
    by_number = {point.trial: point for point in info.points}
    assert by_number[3].spent_device_seconds == stood["trial 3"]
    assert by_number[28].spent_device_seconds == 5210, "an open trial stands at what has been spent so far"
    assert 29 not in by_number, "a waiting trial has not begun"
    rises = [value for _, value in info.incumbents]
    assert rises == sorted(set(rises))
    assert finished_info.incumbent is not None
    assert rises[-1] == finished_info.incumbent.objective
    traces = drawn(progress.draw_progress(info))
    assert len(traces["complete (14)"].x) == 14
    assert len(traces["pruned (11)"].x) == 11
    assert len(traces["failed (2)"].x) == 2
    assert traces["incumbent"].y[-1] == rises[-1]


def test_progress_without_a_ledger_adds_up_the_trials(empty: RunInfo) -> None:
    info = progress.progress_info(replace(empty, trials=some_trials([0.5, 0.4, 0.7])))
    assert isinstance(info, progress.ProgressInfo)
    assert info.incumbents == ((10.0, 0.5), (30.0, 0.7))
    drawn(progress.draw_progress(info))


def test_progress_of_trials_without_any_value_is_drawn(empty: RunInfo) -> None:
    info = progress.progress_info(
        replace(empty, trials=(trial_info(0, "failed", None), trial_info(1, "running", None)))
    )
    assert isinstance(info, progress.ProgressInfo)
    assert info.incumbents == ()
    assert set(drawn(progress.draw_progress(info))) == {"failed (1)", "running (1)"}


def test_a_trial_that_never_started_is_not_in_the_progress(empty: RunInfo) -> None:
    trials = (*some_trials([0.5]), trial_info(1, "out_of_budget", None, device_seconds=0.0))
    info = progress.progress_info(replace(empty, trials=trials))
    assert isinstance(info, progress.ProgressInfo)
    assert [point.trial for point in info.points] == [0]


def test_a_pruned_trial_never_counts_as_the_best(empty: RunInfo) -> None:
    trials = (trial_info(0, "complete", 0.5, device_seconds=1.0), trial_info(1, "pruned", 0.9, device_seconds=1.0))
    info = progress.progress_info(replace(empty, trials=trials))
    assert isinstance(info, progress.ProgressInfo)
    assert info.incumbents == ((1.0, 0.5),)


def test_budget_rows_sum_to_what_was_given(finished_info: RunInfo) -> None:
    info = budget.budget_info(finished_info)
    assert isinstance(info, budget.BudgetInfo)
    rows = dict(info.rows)
    assert sum(rows.values()) == pytest.approx(7200)
    assert rows["unspent"] == 7200 - 5210
    assert rows["refit"] == 520 + 610
    assert rows["trials: failed"] == 36 + 20
    assert rows["start-up"] == 95
    complete = [trial.device_seconds for trial in finished_info.trials if trial.state == "complete"]
    assert rows["trials: complete"] == sum(seconds for seconds in complete if seconds is not None)
    assert [name for name, _ in info.rows][0::9] == ["start-up", "unspent"]
    (trace,) = budget.draw_budget(info).data
    assert "1.25e+03" not in "".join(trace.text)


def charge(phase: str, device_seconds: float, spent: float) -> LedgerCharge:
    return LedgerCharge(at_unix=0.0, phase=phase, device_seconds=device_seconds, spent_device_seconds=spent)


def test_an_unknown_phase_is_kept(empty: RunInfo) -> None:
    run = replace(empty, ledger=(charge("moving house", 4.0, 4.0), charge("trial 7", 2.0, 6.0)))
    info = budget.budget_info(run)
    assert isinstance(info, budget.BudgetInfo)
    assert info.rows == (("trials: running", 2.0), ("moving house", 4.0))
    budget.draw_budget(info)


def test_importance_finds_the_parameter_that_matters(empty: RunInfo) -> None:
    rng = np.random.default_rng(1)
    flat = optuna.distributions.FloatDistribution(0, 1)
    trials = []
    for number in range(60):
        decisive, idle = rng.random(2)
        parameters = [Parameter("head.dropout", float(decisive), flat), Parameter("seed.idle", float(idle), flat)]
        if number % 2:
            parameters.append(Parameter("optimizer.momentum", float(rng.random()), flat))
        if number == 0:
            parameters.append(Parameter("seldom", float(rng.random()), flat))
        trials.append(TrialInfo(number, "complete", 1 - (decisive - 0.3) ** 2, parameters=tuple(parameters)))
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        info = importance.importance_info(replace(empty, trials=tuple(trials)))
    assert not [warning for warning in shown if "regimes" in str(warning.message)], (
        "the page says that estimates are rough"
    )
    assert isinstance(info, importance.ImportanceInfo)
    importances = dict(info.rows)
    assert info.rows[0][0] == "head.dropout"
    assert importances["head.dropout"] > 0.6
    assert "optimizer.momentum" in importances, "a conditional parameter counts too"
    assert sum(importances.values()) == pytest.approx(1)
    assert (info.complete_trials, info.top_trials) == (60, 6)
    importance.draw_importance(info)


def test_importance_says_why_it_is_absent(empty: RunInfo) -> None:
    few = importance.importance_info(replace(empty, trials=some_trials([0.1, 0.2])))
    assert isinstance(few, NoFigure)
    assert few.reason.startswith("2 complete trials")
    bare = importance.importance_info(replace(empty, trials=some_trials([index / 20 for index in range(12)])))
    assert isinstance(bare, NoFigure)
    assert "initial configurations only" in bare.reason
    flat = Parameter("a.b", 0.5, optuna.distributions.FloatDistribution(0, 1))
    same = tuple(replace(trial, parameters=(flat,)) for trial in some_trials([0.5] * 12))
    assert isinstance(importance.importance_info(replace(empty, trials=same)), NoFigure)


def test_parallel_lines_say_where_a_branch_was_not_taken(finished_info: RunInfo) -> None:
    info = parallel.parallel_info(finished_info)
    assert isinstance(info, parallel.ParallelInfo)
    names = [axis.name for axis in info.axes]
    momentum = names.index("stages.1.optimizer.momentum")
    optimizer = names.index("stages.1.optimizer.name")
    for line in info.lines:
        assert (line.positions[momentum] is None) == (line.texts[optimizer] == "adamw")
        assert all(position is None or 0 <= position <= 1 for position in line.positions)
    objectives = [line.objective for line in info.lines]
    assert objectives == sorted(objectives)
    assert len(info.lines) == 14 + 11
    rate = info.axes[names.index("stages.1.optimizer.learning_rate")]
    assert [position for position, _ in rate.ticks] == [0, 1]
    parallel.draw_parallel(info).to_json()


def test_parallel_takes_logarithms_where_the_space_does(empty: RunInfo) -> None:
    log = optuna.distributions.FloatDistribution(1e-5, 1e-1, log=True)
    flag = optuna.distributions.CategoricalDistribution([True, False])
    trials = tuple(
        TrialInfo(n, "complete", n / 10, parameters=(Parameter("a.rate", rate, log), Parameter("a.flag", n == 1, flag)))
        for n, rate in enumerate((1e-4, 1e-3, 1e-2))
    )
    info = parallel.parallel_info(replace(empty, trials=trials), ("a.rate", "a.flag"))
    assert isinstance(info, parallel.ParallelInfo)
    assert [line.positions[0] for line in info.lines] == pytest.approx([0, 0.5, 1])
    assert [line.texts[1] for line in info.lines] == ["false", "true", "false"]
    parallel.draw_parallel(info).to_json()


def test_learning_curves_and_rungs(finished_info: RunInfo) -> None:
    info = learning.learning_info(finished_info)
    assert isinstance(info, learning.LearningInfo)
    assert info.rungs == (2, 6)
    assert len(info.curves) == sum(bool(trial.curve) for trial in finished_info.trials)
    curve = next(curve for curve in info.curves if curve.trial == 3)
    assert curve.epochs == (1, 2, 3, 4, 5, 6)
    assert curve.objectives[-1] == finished_info.trials[3].objective
    traces = drawn(learning.draw_learning(info))
    assert list(traces["complete"].x).count(None) == 14, "one gap after each of the curves"


def test_confusion_comes_from_the_held_out_test_first(finished_info: RunInfo) -> None:
    info = confusion.confusion_info(finished_info)
    assert isinstance(info, confusion.ConfusionInfo)
    assert finished_info.held_out_test is not None
    assert info.counts == finished_info.held_out_test.confusion
    assert all(sum(row) == pytest.approx(1) for row in info.fractions)


def test_without_a_test_the_confusion_is_that_of_the_validation_images(finished_info: RunInfo, empty: RunInfo) -> None:
    figures = ValidationFigures(
        confusion=((1, 1), (0, 2)),
        reliability=(
            ReliabilityBin(low=0.6, high=0.7, images=1, confidence=0.65, accuracy=1.0),
            ReliabilityBin(low=0.8, high=0.9, images=3, confidence=0.86, accuracy=0.667),
        ),
        ece=0.25,
    )
    assert finished_info.ensemble is not None
    run = replace(empty, ensemble=finished_info.ensemble.replace(validation=figures))
    matrix = confusion.confusion_info(run)
    assert isinstance(matrix, confusion.ConfusionInfo)
    assert (matrix.counts, matrix.classes) == (((1, 1), (0, 2)), ("0", "1"))
    assert matrix.source == "the ensemble, calibrated, on 4 validation images"
    curve = confusion.reliability_info(run)
    assert isinstance(curve, confusion.ReliabilityInfo)
    assert (curve.bins, curve.ece) == (figures.reliability, 0.25), "the report computes no metric of its own"
    assert "measured, calibration error 25.0%" in drawn(confusion.draw_reliability(curve))


def test_a_class_without_images_has_fractions_of_zero() -> None:
    assert confusion.ConfusionInfo(("a", "b"), ((0, 0), (1, 3)), "").fractions == ((0, 0), (0.25, 0.75))


def test_ensemble_against_the_best_single(finished_info: RunInfo) -> None:
    info = ensemble.ensemble_info(finished_info)
    assert isinstance(info, ensemble.EnsembleInfo)
    assert info.weights == (("trial 2, refit seed 8", 0.5), ("trial 7, refit seed 9", 0.3), ("trial 0", 0.2))
    assert ("shift", 0.881, 0.856) in info.scores
    assert "ece" not in [name for name, _, _ in info.scores]
    figure = ensemble.draw_ensemble(info)
    assert {figure.layout.yaxis.type, figure.layout.yaxis2.type} == {"category"}, "a name may be a number"
    traces = drawn(figure)
    assert list(traces["ensemble"].x) == [new for _, new, _ in info.scores]
    assert list(traces["best single (trial 2, refit seed 8)"].x) == [old for _, _, old in info.scores]


def test_scatter_has_every_trial_with_both_numbers(finished_info: RunInfo) -> None:
    info = shift.scatter_info(finished_info)
    assert isinstance(info, shift.ScatterInfo)
    assert {point.trial for point in info.points} == {
        item.number for item in finished_info.trials if item.objective is not None
    }
    point = next(point for point in info.points if point.trial == 3)
    assert point.clean_accuracy == finished_info.trials[3].clean_accuracy
    drawn(shift.draw_scatter(info))


def test_shift_groups_come_worst_first(finished_info: RunInfo) -> None:
    info = shift.shift_info(finished_info)
    assert isinstance(info, shift.ShiftInfo)
    assert info.groups[:2] == (("combined", 0.683), ("stain", 0.801))
    assert [score for _, score in info.groups] == sorted(score for _, score in info.groups)
    assert finished_info.held_out_test is not None
    assert info.clean == finished_info.held_out_test.accuracy
    shift.draw_shift(info).to_json()


def test_simulated_sites_are_drawn_by_their_families_with_the_interval_as_a_band(finished_info: RunInfo) -> None:
    info = simulated_sites.simulated_sites_info(finished_info)
    assert isinstance(info, simulated_sites.SimulatedSitesInfo)
    figure = simulated_sites.draw_simulated_sites(info)
    points = figure.data[0]
    assert len(points.x) == 40
    assert list(points.x[:9]) == [1, 2, 3, 4, 5, 6, 7, 8, 1]
    assert list(points.y) == [site.accuracy for site in info.sites]
    band = figure.layout.shapes[0]
    assert (band.y0, band.y1) == (0.41, 0.95)
    figure.to_json()


def test_risk_is_drawn_with_the_threshold_on_each_curve(finished_info: RunInfo) -> None:
    info = risk_coverage.risk_coverage_info(finished_info)
    assert isinstance(info, risk_coverage.RiskCoverageInfo)
    assert [name for name, _ in info.curves] == ["clean images", "shifted images"]
    figure = risk_coverage.draw_risk_coverage(info)
    points = dict(info.curves)
    assert [trace.x[0] for trace in figure.data if trace.mode == "markers"] == [0.95, 0.71]
    assert [trace.y[0] for trace in figure.data if trace.mode == "markers"] == pytest.approx([0.01, 0.07])
    assert len(points["clean images"].curve.coverage) == 40


def test_the_exported_detector_replaces_the_abstention_rule(finished_info: RunInfo) -> None:
    rng = np.random.default_rng(0)
    ood = OodEvaluation(
        in_domain=make_selective(rng, 512, coverage=0.95, accuracy=0.99),
        external=make_selective(rng, 384, coverage=0.64, accuracy=0.8).replace(accuracy=None),
        synthetic_ood=(SyntheticOodResult(kind="noise", images=128, flagged=0.97, auroc=0.99),),
    )
    info = risk_coverage.risk_coverage_info(replace(finished_info, ood=ood))
    assert isinstance(info, risk_coverage.RiskCoverageInfo)
    assert [name for name, _ in info.curves] == ["in-domain images", "simulated sites"]
    figure = risk_coverage.draw_risk_coverage(info)
    assert [trace.x[0] for trace in figure.data if trace.mode == "markers"] == [0.95]
    assert tuple(figure.data[0].y) == ood.in_domain.curve.risk


@pytest.mark.parametrize(
    "make",
    [
        simulated_sites.simulated_sites_info, risk_coverage.risk_coverage_info,
        progress.progress_info, budget.budget_info, importance.importance_info, parallel.parallel_info,
        learning.learning_info, confusion.confusion_info, confusion.reliability_info, ensemble.ensemble_info,
        shift.scatter_info, shift.shift_info,
    ],
)  # fmt: skip
def test_an_empty_run_has_no_figures_but_reasons(empty: RunInfo, make) -> None:
    info = make(empty)
    assert isinstance(info, NoFigure)
    assert info.reason.endswith(".")


def test_names_cannot_smuggle_markup_into_plotly(finished_info: RunInfo) -> None:
    assert finished_info.ensemble is not None
    single = finished_info.ensemble.best_single.replace(name="<a href='javascript:alert(1)'>x</a>")
    info = ensemble.ensemble_info(replace(finished_info, ensemble=finished_info.ensemble.replace(best_single=single)))
    assert isinstance(info, ensemble.EnsembleInfo)
    assert "<a href" not in ensemble.draw_ensemble(info).to_json().replace("\\u003c", "<")
