"""Which trainings of a run become its ensemble."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bloodauto.config.recipe import Recipe, load_recipe
from bloodauto.config.shipped import shipped_folder
from bloodauto.ensemble.assemble import (
    Caps,
    PrunedEvaluation,
    assemble,
    combine,
    out_of_fold_ensemble,
    read_ensemble,
    restricted,
    with_tta_predictions,
)
from bloodauto.ensemble.evaluation import compare_student, estimate_target
from bloodauto.ensemble.predictions import find_trained_networks
from bloodauto.errors import RunError
from bloodauto.evaluation.calibration import apply_calibration
from bloodauto.evaluation.metrics import confusion_matrix, expected_calibration_error
from bloodauto.run.artifacts import (
    Calibration,
    CandidateCounts,
    Metrics,
    NetworkWeights,
    Objective,
    PerClassScaling,
    SiteInfo,
    TrainedNetwork,
    TrainingResult,
    TtaPredictions,
    ValidationPredictions,
)
from bloodauto.run.directory import RunDirectory
from bloodauto.run.training_directory import TrainingDirectory
from tests.ensemble.ensemble_candidates import CLASSES, probabilities

IMAGES, FOLDS = 200, 2
COMPLETED = [(0, 0.7), (1, 0.8), (2, 0.5)]
SCALED = Calibration(
    temperature=1.2,
    per_class=PerClassScaling(scales=(1.0, 2.0, 0.5, 1.0), biases=(0.0, 0.1, -0.1, 0.0)),
    cross_validated_nats=(0.4, 0.3),
)


def _result(objective: float) -> TrainingResult:
    """Of a network of 1,000 parameters."""
    return TrainingResult(
        finished=True,
        objective=objective,
        metrics=Metrics(loss=0.5, accuracy=objective, balanced_accuracy=objective, macro_f1=objective),
        shift=objective,
        latency_ms=1.0,
        target_estimate=None,
        epochs=3,
        parameters=1000,
        seconds=10.0,
        averaged_epochs=None,
        data_wait_fraction=0.0,
    )


def _training(training: TrainingDirectory, *, fold: int, skill: float, seed: int) -> None:
    """The files of a training whose predictions are as good as ``skill`` says."""
    rng = np.random.default_rng(seed)
    labels = np.random.default_rng(7).integers(0, CLASSES, IMAGES * FOLDS)
    index = np.arange(fold, IMAGES * FOLDS, FOLDS)
    shifted_labels = labels[index[:60]]
    training.root.mkdir(parents=True)
    training.predictions.write(
        ValidationPredictions(
            index=index,
            labels=labels[index],
            clean=probabilities(rng, labels[index], skill),
            shifted_labels=shifted_labels,
            shifted_groups=np.array(["stain", "light"] * 30),
            shifted_families=np.array(["stain_hue", "gamma"] * 30),
            shifted_severities=np.full(60, 3),
            shifted_weights=np.array([1.0, 0.25] * 30),
            shifted=probabilities(rng, shifted_labels, 0.7 * skill),
            target=probabilities(rng, np.random.default_rng(8).integers(0, CLASSES, 80), 0.5 * skill),
        )
    )
    training.weights.write(NetworkWeights(weights=(np.zeros(3, np.float32),)))
    training.result.write(_result(0.1 * skill))
    recipe = shipped_folder("trials") / "tiny_cnn.yaml"
    training.recipe.write_text(recipe.read_text(encoding="utf-8"), encoding="utf-8")


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    directory = RunDirectory(tmp_path)
    for number, skill in enumerate((2.0, 3.0, 1.0)):
        _training(directory.trial(number), fold=0, skill=skill, seed=number)
    return directory


def _use_distinct_recipes(run: RunDirectory) -> None:
    for number in range(3):
        path = run.trial(number).recipe
        path.write_text(path.read_text(encoding="utf-8").replace("batch_size: 32", f"batch_size: {16 + number}"))


def _latency_ms(recipe: Recipe) -> float:
    """Of the recipes of ``_use_distinct_recipes``."""
    return {16: 5.0, 17: 9.0, 18: 1.0}[recipe.batch_size]


def test_without_refits_the_trials_themselves_are_the_candidates(run: RunDirectory) -> None:
    ensemble = assemble(run, COMPLETED, num_folds=FOLDS, metric="shift")
    assert ensemble.best_single.name == "00001"
    assert ensemble.scores.shift >= ensemble.best_single.scores.shift
    assert sum(member.weight for member in ensemble.members) == pytest.approx(1.0)
    assert ensemble.images == IMAGES
    assert ensemble.shifted_images == 60


def test_scores_and_figures_are_those_of_the_calibrated_average(run: RunDirectory) -> None:
    ensemble = assemble(run, COMPLETED, num_folds=FOLDS, metric="shift")
    stored = {member.name: run.trial(int(member.name)).predictions.read() for member in ensemble.members}
    average = sum(member.weight * stored[member.name].clean.astype(np.float64) for member in ensemble.members)
    expected = apply_calibration(np.asarray(average), ensemble.calibration)
    labels = stored[ensemble.members[0].name].labels
    np.testing.assert_allclose(out_of_fold_ensemble(ensemble).clean, expected)
    assert ensemble.scores.accuracy == pytest.approx((expected.argmax(axis=1) == labels).mean())
    assert ensemble.validation is not None
    assert ensemble.validation.ece == ensemble.scores.ece == expected_calibration_error(labels, expected)
    confusion = confusion_matrix(labels, expected.argmax(axis=1), CLASSES)
    np.testing.assert_array_equal(ensemble.validation.confusion, confusion)
    assert sum(part.images for part in ensemble.validation.reliability) == IMAGES


def test_unlabelled_target_images_give_an_estimate_of_the_accuracy_there(run: RunDirectory) -> None:
    ensemble = assemble(run, COMPLETED, num_folds=FOLDS, metric="shift")
    estimate = estimate_target(ensemble, np.ones(CLASSES))
    assert estimate.images == 80
    assert 0.0 < estimate.accuracy < ensemble.scores.accuracy
    assert 1 / CLASSES < estimate.confidence < 1.0
    assert (estimate.agreement is None) == (len(ensemble.networks) == 1)
    run.target_estimate.write(estimate)
    assert run.target_estimate.read() == estimate


def test_a_bad_refit_is_not_selected(run: RunDirectory) -> None:
    _training(run.refit("00001-fold0-seed1"), fold=0, skill=0.0, seed=11)
    ensemble = assemble(run, COMPLETED, num_folds=FOLDS, metric="shift")
    assert "00001-fold0-seed1" not in {member.name for member in ensemble.members}
    assert ensemble.scores.shift >= ensemble.best_single.scores.shift


def test_refits_on_every_fold_predict_every_image(run: RunDirectory) -> None:
    for fold in range(FOLDS):
        _training(run.refit(f"00001-fold{fold}-seed0"), fold=fold, skill=3.5, seed=20 + fold)
    ensemble = assemble(run, COMPLETED, num_folds=FOLDS, metric="shift")
    assert [member.name for member in ensemble.members] == ["00001-folds"]
    assert [network.fold for network in ensemble.members[0].networks] == [0, 1]
    assert ensemble.images == IMAGES * FOLDS


def test_refits_that_are_worse_than_the_search_itself_are_not_selected(run: RunDirectory) -> None:
    for fold in range(FOLDS):
        _training(run.refit(f"00001-fold{fold}-seed0"), fold=fold, skill=0.2, seed=20 + fold)
    ensemble = assemble(run, COMPLETED, num_folds=FOLDS, metric="shift")
    assert ensemble.best_single.name == "00001"
    assert ensemble.images == IMAGES


def test_refits_on_some_folds_count_only_where_fold_0_was_held_out(run: RunDirectory) -> None:
    _training(run.refit("00001-fold1-seed0"), fold=1, skill=5.0, seed=21)
    ensemble = assemble(run, COMPLETED, num_folds=FOLDS, metric="shift")
    assert all(member.kind == "trial" for member in ensemble.members)


def test_a_training_without_all_its_files_is_not_a_candidate(run: RunDirectory) -> None:
    run.trial(1).weights.delete()
    assert [network.name for network in find_trained_networks(run, COMPLETED)] == ["00000", "00002"]


def test_a_run_without_a_completed_training_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="larger budget"):
        assemble(RunDirectory(tmp_path), [], num_folds=FOLDS, metric="shift")


def test_a_run_without_an_ensemble_says_how_to_go_on(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="--resume"):
        read_ensemble(RunDirectory(tmp_path))


@pytest.mark.parametrize("metric", ["accuracy", "shift"])
def test_an_ensemble_is_read_as_it_was_written(run: RunDirectory, metric: Objective) -> None:
    _training(run.refit("00001-fold0-seed1"), fold=0, skill=2.9, seed=11)
    ensemble = assemble(run, COMPLETED, num_folds=FOLDS, metric=metric)
    assert ensemble.selection_bias is not None
    for version in (ensemble, ensemble.replace(calibration=SCALED)):
        run.ensemble.write(version)
        assert read_ensemble(run) == version


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("calibration", "temperature"), 0),
        (("abstention", "rule", "confidence_score"), "loudness"),
        (("abstention", "clean"), {}),
        (("members",), []),
    ],
)
def test_a_damaged_ensemble_is_an_error_that_names_the_field(
    run: RunDirectory, path: tuple[str, ...], value: object
) -> None:
    run.ensemble.write(assemble(run, COMPLETED, num_folds=FOLDS, metric="shift"))
    content = json.loads(run.ensemble.path.read_text(encoding="utf-8"))
    part = content
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = value
    run.ensemble.path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(RunError, match=".".join(path)):
        read_ensemble(run)


def test_the_best_trial_is_compared_with_its_refits_on_the_same_images(run: RunDirectory) -> None:
    for fold, objective in ((0, 0.76), (1, 0.1)):
        refit = run.refit(f"00001-fold{fold}-seed1")
        _training(refit, fold=fold, skill=3.0, seed=11 + fold)
        refit.result.write(_result(objective))
    _use_distinct_recipes(run)
    bias = assemble(run, COMPLETED, num_folds=FOLDS, metric="shift").selection_bias
    assert bias is not None
    assert (bias.trials, bias.best, bias.refits) == (3, 0.8, 0.76)
    assert bias.noise == pytest.approx(0.04 / np.sqrt(2))
    assert bias.noise_degrees_of_freedom == 1


@pytest.mark.parametrize(("max_latency_ms", "selected"), [(20.0, "00001"), (8.0, "00000"), (0.5, "00002")])
def test_a_cap_on_latency_excludes_slow_networks(run: RunDirectory, max_latency_ms: float, selected: str) -> None:
    _use_distinct_recipes(run)
    caps = Caps(max_members=1, max_latency_ms=max_latency_ms)
    ensemble = assemble(run, COMPLETED, num_folds=FOLDS, metric="shift", caps=caps, latency_ms=_latency_ms)
    (member,) = ensemble.members
    assert member.name == selected
    assert member.latency_ms == _latency_ms(load_recipe(member.networks[0].files.recipe))


def test_tighter_caps_select_among_the_members(run: RunDirectory) -> None:
    _use_distinct_recipes(run)
    ensemble = assemble(run, COMPLETED, num_folds=FOLDS, metric="shift")
    assert len(ensemble.members) > 1
    single = restricted(ensemble, Caps(max_members=1), None)
    assert [member.name for member in single.members] == ["00001"]
    assert single.ensemble_id != ensemble.ensemble_id
    assert single.selection_bias == ensemble.selection_bias
    fast = restricted(ensemble, Caps(4, max_latency_ms=6.0), _latency_ms)
    assert "00001" not in {member.name for member in fast.members}


def test_caps_that_no_member_meets_are_an_error_that_says_what_would_do(run: RunDirectory) -> None:
    _use_distinct_recipes(run)
    ensemble = assemble(run, COMPLETED, num_folds=FOLDS, metric="shift", caps=Caps(2))
    with pytest.raises(RunError, match=r"the fastest takes \d"):
        restricted(ensemble, Caps(4, max_latency_ms=0.1), _latency_ms)


def test_the_same_ensemble_has_the_same_identity_and_another_calibration_another(run: RunDirectory) -> None:
    ensemble = assemble(run, COMPLETED, num_folds=FOLDS, metric="shift")
    run.ensemble.write(ensemble)
    assert read_ensemble(run).ensemble_id == ensemble.ensemble_id
    assert ensemble.replace(calibration=SCALED).ensemble_id != ensemble.ensemble_id


@pytest.mark.parametrize("metric", ["shift", "accuracy", "balanced_accuracy", "macro_f1"])
@pytest.mark.parametrize("seed", range(4))
def test_the_ensemble_is_never_worse_than_the_best_candidate(tmp_path: Path, metric: Objective, seed: int) -> None:
    """Also after calibration, where networks that favour some classes call for scales and biases."""
    run = RunDirectory(tmp_path)
    rng = np.random.default_rng(seed)
    for number in range(3):
        training = run.trial(number)
        _training(training, fold=0, skill=float(rng.uniform(0.5, 2.5)), seed=10 * seed + number)
        stored = training.predictions.read()
        tilted = {
            name: getattr(stored, name) * np.array([4.0, 1.0, 1.0, 0.5], dtype=np.float32)
            for name in ("clean", "shifted")
        }
        training.predictions.write(
            stored.replace(**{name: rows / rows.sum(axis=1, keepdims=True) for name, rows in tilted.items()})
        )
    ensemble = assemble(run, COMPLETED, num_folds=FOLDS, metric=metric)
    assert getattr(ensemble.scores, metric) >= getattr(ensemble.best_single.scores, metric) - 1e-9


def test_a_pruned_trial_that_predicts_better_is_selected(run: RunDirectory) -> None:
    _training(run.trial(3), fold=0, skill=4.0, seed=3)
    evaluated = PrunedEvaluation(pruned=5, promising=2, trial_numbers=(3,))
    ensemble = assemble(run, COMPLETED, num_folds=FOLDS, metric="shift", evaluate_pruned=lambda: evaluated)
    assert ensemble.best_single.name == "00003"
    assert {member.name: member.kind for member in ensemble.members}["00003"] == "pruned trial"
    assert ensemble.candidate_counts == CandidateCounts(trials=3, refits=0, pruned=5, promising=2, evaluated=1)


def test_trials_that_were_cut_are_exported_where_none_was_completed(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    _training(run.trial(3), fold=0, skill=2.0, seed=3)
    _training(run.trial(4), fold=0, skill=2.5, seed=4)
    evaluated = PrunedEvaluation(pruned=2, promising=2, trial_numbers=(3, 4))
    ensemble = assemble(run, [], num_folds=FOLDS, metric="shift", evaluate_pruned=lambda: evaluated)
    assert {member.kind for member in ensemble.members} == {"pruned trial"}
    assert ensemble.selection_bias is None
    with pytest.raises(RunError, match="larger budget"):
        assemble(run, [], num_folds=FOLDS, metric="shift", evaluate_pruned=PrunedEvaluation)


def test_pruned_trials_are_not_evaluated_where_refits_on_every_fold_are_the_candidates(run: RunDirectory) -> None:
    for fold in range(FOLDS):
        _training(run.refit(f"00001-fold{fold}-seed0"), fold=fold, skill=3.5, seed=20 + fold)

    def never() -> PrunedEvaluation:
        raise AssertionError("an evaluation costs time")

    ensemble = assemble(run, COMPLETED, num_folds=FOLDS, metric="shift", evaluate_pruned=never)
    assert ensemble.candidate_counts == CandidateCounts(trials=3, refits=2, pruned=0, promising=0, evaluated=0)


def _predict_target(training: TrainingDirectory, skill: float, seed: int) -> None:
    """Gives a training other predictions for the target images."""
    labels = np.random.default_rng(8).integers(0, CLASSES, 80)
    target = probabilities(np.random.default_rng(seed), labels, skill)
    training.predictions.write(training.predictions.read().replace(target=target))


def test_target_images_decide_where_labelled_ones_are_close(run: RunDirectory) -> None:
    _training(run.trial(3), fold=0, skill=2.0, seed=5)
    _predict_target(run.trial(1), 0.2, 1)
    _predict_target(run.trial(3), 6.0, 2)
    completed = [*COMPLETED, (3, 0.79)]
    without, with_target = (
        assemble(run, completed, num_folds=FOLDS, metric="shift", caps=Caps(1), site_info=site_info)
        for site_info in (SiteInfo(), SiteInfo(class_fractions=(0.25,) * CLASSES))
    )
    assert [member.name for member in without.members] == ["00001"]
    assert [member.name for member in with_target.members] == ["00003"]
    assert with_target.scores.target_estimate is not None
    assert with_target.scores.target_estimate > 0.8
    assert without.scores.target_estimate is None
    run.ensemble.write(with_target)
    assert read_ensemble(run) == with_target
    assert restricted(with_target, Caps(1), None).scores == with_target.scores


@pytest.mark.parametrize("folds_are_sites", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_with_target_images_and_sites_the_ensemble_is_never_worse_than_the_best_candidate(
    tmp_path: Path, seed: int, folds_are_sites: bool
) -> None:
    run = RunDirectory(tmp_path)
    rng = np.random.default_rng(seed)
    for number in range(4):
        _training(run.trial(number), fold=0, skill=float(rng.uniform(1.0, 2.5)), seed=10 * seed + number)
        _predict_target(run.trial(number), float(rng.uniform(0.5, 2.0)), number)
    fractions = tuple(rng.dirichlet(np.full(CLASSES, 5.0)).tolist())
    site_info = SiteInfo(folds_are_sites=folds_are_sites, class_fractions=fractions)
    ensemble = assemble(run, [*COMPLETED, (3, 0.4)], num_folds=FOLDS, metric="shift", site_info=site_info)
    objectives = []
    for scores in (ensemble.scores, ensemble.best_single.scores):
        assert scores.target_estimate is not None
        objectives.append((scores.shift + scores.target_estimate) / 2)
    assert objectives[0] >= objectives[1] - 1e-6
    assert objectives[0] == pytest.approx(ensemble.trace[-1].score, abs=0.2)


def test_tta_predictions_give_the_same_members_another_calibration(run: RunDirectory) -> None:
    ensemble = assemble(run, COMPLETED, num_folds=FOLDS, metric="shift")
    with_tta = {}
    for network in ensemble.networks:
        stored = network.files.predictions.read()
        better = np.eye(CLASSES, dtype=np.float32)
        with_tta[network.name] = TtaPredictions(
            clean=0.5 * (stored.clean + better[stored.labels]),
            shifted=0.5 * (stored.shifted + better[stored.shifted_labels]),
        )
    result = with_tta_predictions(ensemble, with_tta)
    assert [(member.name, member.weight) for member in result.members] == [
        (member.name, member.weight) for member in ensemble.members
    ]
    assert result.scores.accuracy > ensemble.scores.accuracy
    assert result.calibration != ensemble.calibration


def _network(run: RunDirectory, number: int) -> TrainedNetwork:
    folder = run.trial(number).root
    return TrainedNetwork(name=folder.name, kind="trial", trial=number, fold=0, folder=folder)


def test_given_networks_are_combined_by_given_weights(run: RunDirectory) -> None:
    ensemble = combine([_network(run, 0), _network(run, 1)], [1.0, 3.0])
    assert [member.weight for member in ensemble.members] == [0.25, 0.75]
    assert ensemble.best_single.name == "00001"
    assert ensemble.trace == ()
    assert ensemble.candidate_counts is None


def test_networks_that_were_validated_on_different_images_are_not_combined(run: RunDirectory) -> None:
    _training(run.trial(5), fold=1, skill=2.0, seed=5)
    with pytest.raises(RunError, match="training 00005: expected the validation images of training 00000"):
        combine([_network(run, 0), _network(run, 5)], [1.0, 1.0])


def test_a_student_is_compared_with_its_teacher_on_the_same_images(run: RunDirectory) -> None:
    teacher = combine([_network(run, 0), _network(run, 1)], [1.0, 1.0])
    same = compare_student(teacher, teacher)
    assert same.agreement == same.agreement_shifted == 1.0
    assert same.scores == same.teacher_scores
    comparison = compare_student(combine([_network(run, 2)], [1.0]), teacher)
    assert comparison.teacher_scores == same.scores
    assert comparison.scores.accuracy < comparison.teacher_scores.accuracy
    assert 0 < comparison.agreement < 1
    assert (comparison.images, comparison.shifted_images) == (IMAGES, 60)
