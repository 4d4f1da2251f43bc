"""Each figure's tuple is compared with what the run holds; each drawing is made and looked at for its traces."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import optuna
import plotly.graph_objects as go
import pytest

from bloodauto.report.figures import budget, confusion, ensemble, importance, learning, parallel, progress
from bloodauto.report.figures import external_estimate as elsewhere
from bloodauto.report.figures import risk_coverage as risk
from bloodauto.report.figures import simulated_sites as simulated_sites
from bloodauto.report.figures.style import NoFigure
from bloodauto.report.info import LedgerEntry, ParamValue, RunInfo, TrialInfo, ValidationPredictions


def drawn(figure: go.Figure) -> dict:
    """Traces by name; that the figure can be written as JSON is part of drawing it."""
    figure.to_json()
    return {trace.name: trace for trace in figure.data}


@pytest.fixture
def empty(tmp_path_factory: pytest.TempPathFactory) -> RunInfo:
    return RunInfo(root=tmp_path_factory.getbasetemp())


def some_trials(values: list[float]) -> tuple[TrialInfo, ...]:
    return tuple(TrialInfo(number, "complete", value, device_seconds=10.0) for number, value in enumerate(values))


def test_progress_places_trials_where_the_ledger_stood(finished_info: RunInfo) -> None:
    info = progress.progress_info(finished_info)
    assert isinstance(info, progress.ProgressInfo)
    stood = {entry.phase: entry.spent_device_seconds for entry in finished_info.ledger}
    by_number = {point.trial: point for point in info.points}
    assert by_number[3].spent_device_seconds == stood["trial 3"]
    assert by_number[28].spent_device_seconds == 5210, "an open trial stands at what has been spent so far"
    assert 29 not in by_number, "a waiting trial has not begun"
    rises = [value for _, value in info.best]
    assert rises == sorted(set(rises))
    assert finished_info.best is not None
    assert rises[-1] == finished_info.best.value
    traces = drawn(progress.draw_progress(info))
    assert len(traces["complete (14)"].x) == 14
    assert len(traces["pruned (11)"].x) == 11
    assert len(traces["failed (2)"].x) == 2
    assert traces["best so far"].y[-1] == rises[-1]


def test_progress_without_a_ledger_adds_up_the_trials(empty: RunInfo) -> None:
    info = progress.progress_info(replace(empty, trials=some_trials([0.5, 0.4, 0.7])))
    assert isinstance(info, progress.ProgressInfo)
    assert info.best == ((10.0, 0.5), (30.0, 0.7))
    drawn(progress.draw_progress(info))


def test_progress_of_trials_without_any_value_is_drawn(empty: RunInfo) -> None:
    info = progress.progress_info(replace(empty, trials=(TrialInfo(0, "failed", None), TrialInfo(1, "running", None))))
    assert isinstance(info, progress.ProgressInfo)
    assert info.best == ()
    assert set(drawn(progress.draw_progress(info))) == {"failed (1)", "open (1)"}


def test_a_trial_that_was_never_started_has_no_place_in_the_progress(empty: RunInfo) -> None:
    trials = (*some_trials([0.5]), TrialInfo(1, "out_of_budget", None, device_seconds=0.0))
    info = progress.progress_info(replace(empty, trials=trials))
    assert isinstance(info, progress.ProgressInfo)
    assert [point.trial for point in info.points] == [0]


def test_a_pruned_trial_never_counts_as_the_best(empty: RunInfo) -> None:
    trials = (TrialInfo(0, "complete", 0.5, device_seconds=1), TrialInfo(1, "pruned", 0.9, device_seconds=1))
    info = progress.progress_info(replace(empty, trials=trials))
    assert isinstance(info, progress.ProgressInfo)
    assert info.best == ((1.0, 0.5),)


def test_budget_rows_sum_to_what_was_given(finished_info: RunInfo) -> None:
    info = budget.budget_info(finished_info)
    assert isinstance(info, budget.BudgetInfo)
    rows = dict(info.rows)
    assert sum(rows.values()) == pytest.approx(7200)
    assert rows["unspent"] == 7200 - 5210
    assert rows["refit"] == 520 + 610
    assert rows["trials: failed"] == 36 + 20
    assert rows["start-up"] == 95
    complete = [trial.device_seconds for trial in finished_info.trials if trial.outcome == "complete"]
    assert rows["trials: complete"] == sum(seconds for seconds in complete if seconds is not None)
    assert [name for name, _ in info.rows][0::9] == ["start-up", "unspent"]
    (trace,) = budget.draw_budget(info).data
    assert "1.25e+03" not in "".join(trace.text)


def test_a_purpose_nobody_foresaw_is_kept(empty: RunInfo) -> None:
    run = replace(empty, ledger=(LedgerEntry("moving house", 4.0, 4.0), LedgerEntry("trial 7", 2.0, 6.0)))
    info = budget.budget_info(run)
    assert isinstance(info, budget.BudgetInfo)
    assert info.rows == (("trials: open", 2.0), ("moving house", 4.0))
    budget.draw_budget(info)


def test_importance_finds_the_parameter_that_matters(empty: RunInfo) -> None:
    rng = np.random.default_rng(1)
    flat = optuna.distributions.FloatDistribution(0, 1)
    trials = []
    for number in range(60):
        decisive, idle = rng.random(2)
        params = [ParamValue("head.dropout", float(decisive), flat), ParamValue("seed.idle", float(idle), flat)]
        if number % 2:
            params.append(ParamValue("optimizer.momentum", float(rng.random()), flat))
        trials.append(TrialInfo(number, "complete", 1 - (decisive - 0.3) ** 2, params=tuple(params)))
    info = importance.importance_info(replace(empty, trials=tuple(trials)))
    assert isinstance(info, importance.ImportanceInfo)
    shares = dict(info.rows)
    assert info.rows[0][0] == "head.dropout"
    assert shares["head.dropout"] > 0.6
    assert "optimizer.momentum" in shares, "a conditional parameter is judged too"
    assert sum(shares.values()) == pytest.approx(1)
    assert (info.complete_trials, info.top_trials) == (60, 6)
    importance.draw_importance(info)


def test_importance_says_why_it_is_absent(empty: RunInfo) -> None:
    few = importance.importance_info(replace(empty, trials=some_trials([0.1, 0.2])))
    assert isinstance(few, NoFigure)
    assert few.reason.startswith("2 complete trials")
    bare = importance.importance_info(replace(empty, trials=some_trials([index / 20 for index in range(12)])))
    assert isinstance(bare, NoFigure)
    assert "initial configurations only" in bare.reason
    flat = ParamValue("a.b", 0.5, optuna.distributions.FloatDistribution(0, 1))
    same = tuple(replace(trial, params=(flat,)) for trial in some_trials([0.5] * 12))
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
    whole = optuna.distributions.CategoricalDistribution([True, False])
    trials = tuple(
        TrialInfo(n, "complete", n / 10, params=(ParamValue("a.rate", rate, log), ParamValue("a.flag", n == 1, whole)))
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
    assert len(info.curves) == sum(bool(trial.intermediate) for trial in finished_info.trials)
    curve = next(curve for curve in info.curves if curve.trial == 3)
    assert curve.epochs == (1, 2, 3, 4, 5, 6)
    assert curve.objectives[-1] == finished_info.trials[3].value
    traces = drawn(learning.draw_learning(info))
    assert list(traces["complete"].x).count(None) == 14, "one gap after each of the curves"


def test_confusion_comes_from_the_sealed_test_first(finished_info: RunInfo) -> None:
    info = confusion.confusion_info(finished_info)
    assert isinstance(info, confusion.ConfusionInfo)
    assert finished_info.test is not None
    assert info.counts == finished_info.test.confusion
    assert all(sum(row) == pytest.approx(1) for row in info.shares)
    confusion.draw_confusion(info).to_json()


def test_confusion_and_reliability_of_validation_predictions(empty: RunInfo) -> None:
    labels = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.35, 0.65], [0.12, 0.88]])
    run = replace(empty, predictions=ValidationPredictions("trial 4, before calibration", labels, probabilities))
    matrix = confusion.confusion_info(run)
    assert isinstance(matrix, confusion.ConfusionInfo)
    assert matrix.counts == ((1, 1), (0, 2))
    assert "trial 4" in matrix.source
    curve = confusion.reliability_info(run)
    assert isinstance(curve, confusion.ReliabilityInfo)
    assert [(entry.images, entry.accuracy) for entry in curve.bins] == [(1, 1.0), (2, 0.5), (1, 1.0)]
    assert [entry.confidence for entry in curve.bins] == pytest.approx([0.65, 0.84, 0.9])
    assert curve.ece == pytest.approx((0.35 + 2 * 0.34 + 0.1) / 4)
    confusion.draw_reliability(curve).to_json()


def test_a_class_without_images_has_shares_of_nought() -> None:
    assert confusion.ConfusionInfo(("a", "b"), ((0, 0), (1, 3)), "").shares == ((0, 0), (0.25, 0.75))


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
    info = elsewhere.scatter_info(finished_info)
    assert isinstance(info, elsewhere.ScatterInfo)
    assert {point.trial for point in info.points} == {t.number for t in finished_info.trials if t.value is not None}
    point = next(point for point in info.points if point.trial == 3)
    assert point.clean_accuracy == finished_info.trials[3].metric("accuracy")
    drawn(elsewhere.draw_scatter(info))


def test_rank_correlation_is_spearmans(empty: RunInfo) -> None:
    from scipy.stats import spearmanr

    rng = np.random.default_rng(8)
    values, accuracies = rng.integers(0, 5, 20) / 5, rng.integers(0, 5, 20) / 5
    trials = tuple(
        TrialInfo(number, "complete", float(value), metrics=(("accuracy", float(accuracy)),))
        for number, (value, accuracy) in enumerate(zip(values, accuracies, strict=True))
    )
    info = elsewhere.scatter_info(replace(empty, trials=trials))
    assert isinstance(info, elsewhere.ScatterInfo)
    assert info.rank_correlation == pytest.approx(spearmanr(accuracies, values).statistic)


def test_shift_groups_come_worst_first(finished_info: RunInfo) -> None:
    info = elsewhere.shift_info(finished_info)
    assert isinstance(info, elsewhere.ShiftInfo)
    assert info.groups[:2] == (("combined", 0.683), ("stain", 0.801))
    assert [score for _, score in info.groups] == sorted(score for _, score in info.groups)
    assert finished_info.test is not None
    assert info.clean == finished_info.test.accuracy
    elsewhere.draw_shift(info).to_json()


def test_laboratories_are_drawn_by_what_differs_with_the_interval_as_a_band(finished_info: RunInfo) -> None:
    info = simulated_sites.simulated_sites_info(finished_info)
    assert isinstance(info, simulated_sites.SimulatedSitesInfo)
    figure = simulated_sites.draw_simulated_sites(info)
    points = figure.data[0]
    assert len(points.x) == 40
    assert list(points.x[:9]) == [1, 2, 3, 4, 5, 6, 7, 8, 1]
    assert list(points.y) == [one.accuracy for one in info.simulated_sites]
    band = figure.layout.shapes[0]
    assert (band.y0, band.y1) == (0.41, 0.95)
    figure.to_json()


def test_risk_is_drawn_with_the_threshold_on_each_curve(finished_info: RunInfo) -> None:
    info = risk.risk_coverage_info(finished_info)
    assert isinstance(info, risk.RiskCoverageInfo)
    assert [name for name, _ in info.parts] == ["clean images", "shifted views"]
    figure = risk.draw_risk_coverage(info)
    points = dict(info.parts)
    assert [trace.x[0] for trace in figure.data if trace.mode == "markers"] == [0.95, 0.71]
    assert [trace.y[0] for trace in figure.data if trace.mode == "markers"] == pytest.approx([0.01, 0.07])
    assert len(points["clean images"].curve) == 40


@pytest.mark.parametrize(
    "make",
    [
        simulated_sites.simulated_sites_info, risk.risk_coverage_info,
        progress.progress_info, budget.budget_info, importance.importance_info, parallel.parallel_info,
        learning.learning_info, confusion.confusion_info, confusion.reliability_info, ensemble.ensemble_info,
        elsewhere.scatter_info, elsewhere.shift_info,
    ],
)  # fmt: skip
def test_an_empty_run_has_no_figures_but_reasons(empty: RunInfo, make) -> None:
    info = make(empty)
    assert isinstance(info, NoFigure)
    assert info.reason.endswith(".")


def test_names_cannot_smuggle_markup_into_plotly(finished_info: RunInfo) -> None:
    assert finished_info.test is not None
    test = replace(finished_info.test, classes=("<a href='javascript:alert(1)'>x</a>", *finished_info.test.classes[1:]))
    info = confusion.confusion_info(replace(finished_info, test=test))
    assert isinstance(info, confusion.ConfusionInfo)
    assert "<a href" not in confusion.draw_confusion(info).to_json().replace("\\u003c", "<")
