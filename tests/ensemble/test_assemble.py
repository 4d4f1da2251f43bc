"""Which trainings of a run become its ensemble."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bloodauto.config.recipe import Recipe, load_recipe
from bloodauto.config.shipped import shipped_folder
from bloodauto.ensemble.assemble import Caps, PrunedEvaluation, assemble, restricted
from bloodauto.ensemble.predictions import find_trained_networks
from bloodauto.ensemble.record import CandidateCounts, read_ensemble, write_ensemble
from bloodauto.ensemble.scoring import SiteInfo
from bloodauto.ensemble.target_estimate import estimate_target, write_target
from bloodauto.errors import RunError
from bloodauto.evaluation.evaluator import ValidationPredictions
from bloodauto.evaluation.probability_scaling import Calibration, PerClass
from bloodauto.run.artifacts import NetworkWeights
from bloodauto.run.directory import RunDirectory
from bloodauto.run.files import read_arrays, read_json, write_arrays, write_json

CLASSES, IMAGES, FOLDS = 4, 200, 2


def _answers(rng: np.random.Generator, labels: np.ndarray, skill: float) -> np.ndarray:
    """Probabilities that name the right class more often the more skill."""
    scores = rng.normal(size=(len(labels), CLASSES)) + skill * np.eye(CLASSES)[labels]
    exponentials = np.exp(scores)
    return (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32)


def _training(folder: Path, *, fold: int, skill: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.random.default_rng(7).integers(0, CLASSES, IMAGES * FOLDS)
    index = np.arange(fold, IMAGES * FOLDS, FOLDS)
    views = labels[index[:60]]
    folder.mkdir(parents=True)
    ValidationPredictions(
        index=index,
        labels=labels[index],
        clean=_answers(rng, labels[index], skill),
        shifted_labels=views,
        shifted_groups=np.array(["stain", "light"] * 30),
        shifted_families=np.array(["stain_hue", "gamma"] * 30),
        shifted_severities=np.full(60, 3),
        shifted_weights=np.array([1.0, 0.25] * 30),
        shifted=_answers(rng, views, 0.7 * skill),
        target=_answers(rng, np.random.default_rng(8).integers(0, CLASSES, 80), 0.5 * skill),
    ).write(folder / "predictions.npz")
    NetworkWeights(weights=(np.zeros(3, np.float32),)).write(folder / "best.npz")
    write_json(folder / "result.json", {"parameters": 1000, "objective": 0.25 * skill})
    recipe = shipped_folder("trials") / "tiny_cnn.yaml"
    (folder / "recipe.yaml").write_text(recipe.read_text(encoding="utf-8"), encoding="utf-8")


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    directory = RunDirectory(tmp_path)
    for number, skill in enumerate((2.0, 3.0, 1.0)):
        _training(directory.trial(number).root, fold=0, skill=skill, seed=number)
    return directory


COMPLETED = [(0, 0.7), (1, 0.8), (2, 0.5)]


def test_without_refits_the_trials_themselves_are_the_candidates(run: RunDirectory) -> None:
    ensemble = assemble(run, COMPLETED, num_folds=FOLDS, metric="shift")
    assert ensemble.best_single[0] == "00001"
    assert ensemble.scores["shift"] >= ensemble.best_single[1]["shift"]
    assert sum(member.weight for member in ensemble.members) == pytest.approx(1.0)
    assert ensemble.images == IMAGES


def test_unlabelled_target_images_give_an_estimate_of_the_accuracy_there(run: RunDirectory) -> None:
    ensemble = assemble(run, COMPLETED, num_folds=FOLDS, metric="shift")
    estimate = estimate_target(ensemble, np.ones(CLASSES))
    assert estimate.images == 80
    assert 0.0 < estimate.accuracy < ensemble.scores["accuracy"]
    assert 1 / CLASSES < estimate.confidence < 1.0
    assert (estimate.agreement is None) == (sum(len(member.networks) for member in ensemble.members) == 1)
    write_target(run, estimate)
    assert read_json(run.root / "target.json")["accuracy"] == pytest.approx(estimate.accuracy)


def test_a_bad_refit_is_not_shipped(run: RunDirectory) -> None:
    _training(run.refit("00001-fold0-seed1").root, fold=0, skill=0.0, seed=11)
    ensemble = assemble(run, COMPLETED, num_folds=FOLDS, metric="shift")
    assert "00001-fold0-seed1" not in {member.name for member in ensemble.members}
    assert ensemble.scores["shift"] >= ensemble.best_single[1]["shift"]


def test_a_whole_set_of_folds_answers_for_every_image(run: RunDirectory) -> None:
    for fold in range(FOLDS):
        _training(run.refit(f"00001-fold{fold}-seed0").root, fold=fold, skill=3.5, seed=20 + fold)
    ensemble = assemble(run, COMPLETED, num_folds=FOLDS, metric="shift")
    assert [member.name for member in ensemble.members] == ["00001-folds"]
    assert [one.fold for one in ensemble.members[0].networks] == [0, 1]
    assert ensemble.images == IMAGES * FOLDS


def test_folds_that_are_worse_than_the_search_itself_are_not_shipped(run: RunDirectory) -> None:
    for fold in range(FOLDS):
        _training(run.refit(f"00001-fold{fold}-seed0").root, fold=fold, skill=0.2, seed=20 + fold)
    ensemble = assemble(run, COMPLETED, num_folds=FOLDS, metric="shift")
    assert ensemble.best_single[0] == "00001"
    assert ensemble.images == IMAGES


def test_an_incomplete_set_of_folds_counts_only_where_it_answers(run: RunDirectory) -> None:
    _training(run.refit("00001-fold1-seed0").root, fold=1, skill=5.0, seed=21)
    ensemble = assemble(run, COMPLETED, num_folds=FOLDS, metric="shift")
    assert all(member.kind == "trial" for member in ensemble.members)


def test_a_training_without_all_its_files_is_no_candidate(run: RunDirectory) -> None:
    (run.trial(1).root / "best.npz").unlink()
    assert [one.name for one in find_trained_networks(run, COMPLETED)] == ["00000", "00002"]


def test_nothing_finished_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="larger budget"):
        assemble(RunDirectory(tmp_path), [], num_folds=FOLDS, metric="shift")


def test_what_was_written_is_read_again(run: RunDirectory) -> None:
    ensemble = assemble(run, COMPLETED, num_folds=FOLDS, metric="accuracy")
    write_ensemble(run, ensemble)
    assert read_ensemble(run) == ensemble


def test_a_run_without_an_ensemble_says_how_to_go_on(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="--resume"):
        read_ensemble(RunDirectory(tmp_path))


def test_what_is_written_with_scales_and_noise_is_read_again(run: RunDirectory) -> None:
    _training(run.refit("00001-fold0-seed1").root, fold=0, skill=2.9, seed=11)
    ensemble = assemble(run, COMPLETED, num_folds=FOLDS, metric="shift")
    assert ensemble.winners_curse is not None
    scaled = Calibration(1.2, PerClass((1.0, 2.0, 0.5, 1.0), (0.0, 0.1, -0.1, 0.0)), (0.4, 0.3))
    ensemble = replace(ensemble, calibration=scaled)
    write_ensemble(run, ensemble)
    assert read_ensemble(run) == ensemble


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("calibration", "temperature"), 0),
        (("abstention", "confidence_score"), "luck"),
        (("abstention", "clean"), {}),
        (("members",), []),
    ],
)
def test_an_ensemble_that_was_tampered_with_is_an_error(run: RunDirectory, place: tuple[str, ...], value) -> None:
    write_ensemble(run, assemble(run, COMPLETED, num_folds=FOLDS, metric="shift"))
    content = read_json(run.ensemble.path)
    part = content
    for name in place[:-1]:
        part = part[name]
    part[place[-1]] = value
    write_json(run.ensemble.path, content)
    with pytest.raises(RunError, match="something is missing or wrong"):
        read_ensemble(run)


def test_the_winner_is_compared_with_its_refits_on_the_same_images(run: RunDirectory) -> None:
    _training(run.refit("00001-fold0-seed1").root, fold=0, skill=3.0, seed=11)
    _training(run.refit("00001-fold1-seed1").root, fold=1, skill=3.0, seed=12)
    write_json(run.refit("00001-fold0-seed1").root / "result.json", {"parameters": 1000, "objective": 0.76})
    write_json(run.refit("00001-fold1-seed1").root / "result.json", {"parameters": 1000, "objective": 0.1})
    _distinct(run)
    curse = assemble(run, COMPLETED, num_folds=FOLDS, metric="shift").winners_curse
    assert curse is not None
    assert (curse.trials, curse.best, curse.refits) == (3, 0.8, 0.76)
    assert curse.noise == pytest.approx(0.04 / np.sqrt(2))
    assert curse.noise_degrees_of_freedom == 1


def _milliseconds(recipe: Recipe) -> float:
    """Of the recipes of ``_distinct``."""
    return {16: 5.0, 17: 9.0, 18: 1.0}[recipe.batch_size]


def _distinct(run: RunDirectory) -> None:
    for number in range(3):
        path = run.trial(number).root / "recipe.yaml"
        path.write_text(path.read_text(encoding="utf-8").replace("batch_size: 32", f"batch_size: {16 + number}"))


@pytest.mark.parametrize(("most", "wanted"), [(20.0, "00001"), (8.0, "00000"), (0.5, "00002")])
def test_a_cap_on_latency_leaves_slow_networks_out(run: RunDirectory, most: float, wanted: str) -> None:
    _distinct(run)
    caps = Caps(max_members=1, max_latency_ms=most)
    ensemble = assemble(run, COMPLETED, num_folds=FOLDS, metric="shift", caps=caps, latency_ms=_milliseconds)
    assert [member.name for member in ensemble.members] == [wanted]
    assert ensemble.members[0].latency_ms == _milliseconds(
        load_recipe(ensemble.members[0].networks[0].folder / "recipe.yaml")
    )


def test_tighter_caps_choose_among_the_members(run: RunDirectory) -> None:
    _distinct(run)
    whole = assemble(run, COMPLETED, num_folds=FOLDS, metric="shift")
    assert len(whole.members) > 1
    single = restricted(whole, Caps(max_members=1), None)
    assert [member.name for member in single.members] == ["00001"]
    assert single.ensemble_id != whole.ensemble_id
    assert single.winners_curse == whole.winners_curse
    fast = restricted(whole, Caps(4, max_latency_ms=6.0), _milliseconds)
    assert "00001" not in {member.name for member in fast.members}


def test_caps_that_no_member_keeps_are_an_error_that_says_what_would_do(run: RunDirectory) -> None:
    _distinct(run)
    whole = assemble(run, COMPLETED, num_folds=FOLDS, metric="shift", caps=Caps(2))
    with pytest.raises(RunError, match=r"the fastest takes \d"):
        restricted(whole, Caps(4, max_latency_ms=0.1), _milliseconds)


def test_the_same_ensemble_has_the_same_identity_and_another_calibration_another(run: RunDirectory) -> None:
    ensemble = assemble(run, COMPLETED, num_folds=FOLDS, metric="shift")
    write_ensemble(run, ensemble)
    assert read_ensemble(run).ensemble_id == ensemble.ensemble_id
    assert replace(ensemble, calibration=Calibration(9.0, None, None)).ensemble_id != ensemble.ensemble_id


@pytest.mark.parametrize("metric", ["shift", "accuracy", "balanced_accuracy", "macro_f1"])
@pytest.mark.parametrize("seed", range(4))
def test_what_is_exported_is_never_worse_than_the_best_candidate(tmp_path: Path, metric: str, seed: int) -> None:
    """Also after calibration, where classes that the networks favour invite scales and biases."""
    run = RunDirectory(tmp_path)
    rng = np.random.default_rng(seed)
    for number in range(3):
        _training(run.trial(number).root, fold=0, skill=float(rng.uniform(0.5, 2.5)), seed=10 * seed + number)
        path = run.trial(number).root / "predictions.npz"
        arrays = read_arrays(path)
        for name in ("clean", "shifted"):
            tilted = arrays[name] * np.array([4.0, 1.0, 1.0, 0.5], dtype=np.float32)
            arrays[name] = tilted / tilted.sum(axis=1, keepdims=True)
        write_arrays(path, **arrays)
    ensemble = assemble(run, COMPLETED, num_folds=FOLDS, metric=metric)  # type: ignore[arg-type]
    assert ensemble.scores[metric] >= ensemble.best_single[1][metric] - 1e-9


def test_a_stopped_trial_that_answers_better_is_chosen_and_the_record_says_what_was_looked_at(
    run: RunDirectory,
) -> None:
    _training(run.trial(3).root, fold=0, skill=4.0, seed=3)
    evaluated = PrunedEvaluation(pruned=5, promising=2, trial_numbers=(3,))
    ensemble = assemble(run, COMPLETED, num_folds=FOLDS, metric="shift", evaluate_pruned=lambda: evaluated)
    assert ensemble.best_single[0] == "00003"
    assert {member.name: member.kind for member in ensemble.members}["00003"] == "pruned trial"
    assert ensemble.candidate_counts == CandidateCounts(trials=3, refits=0, pruned=5, promising=2, evaluated=1)
    write_ensemble(run, ensemble)
    assert read_ensemble(run) == ensemble


def test_stopped_trials_are_not_looked_at_where_sets_of_folds_are_chosen_among(run: RunDirectory) -> None:
    for fold in range(FOLDS):
        _training(run.refit(f"00001-fold{fold}-seed0").root, fold=fold, skill=3.5, seed=20 + fold)

    def never() -> PrunedEvaluation:
        raise AssertionError("judging costs time")

    ensemble = assemble(run, COMPLETED, num_folds=FOLDS, metric="shift", evaluate_pruned=never)
    assert ensemble.candidate_counts == CandidateCounts(trials=3, refits=2, pruned=0, promising=0, evaluated=0)


def _sees_the_target(folder: Path, skill: float, seed: int) -> None:
    """Gives a training other answers for the target images."""
    arrays = read_arrays(folder / "predictions.npz")
    labels = np.random.default_rng(8).integers(0, CLASSES, 80)
    arrays["target"] = _answers(np.random.default_rng(seed), labels, skill)
    write_arrays(folder / "predictions.npz", **arrays)


def test_target_images_turn_a_choice_that_the_labelled_ones_leave_close(run: RunDirectory) -> None:
    _training(run.trial(3).root, fold=0, skill=2.0, seed=5)
    _sees_the_target(run.trial(1).root, 0.2, 1)
    _sees_the_target(run.trial(3).root, 6.0, 2)
    completed = [*COMPLETED, (3, 0.79)]
    chosen = {
        site_info: assemble(run, completed, num_folds=FOLDS, metric="shift", caps=Caps(1), site_info=site_info)
        for site_info in (SiteInfo(), SiteInfo(class_fractions=(0.25,) * CLASSES))
    }
    without, with_target = chosen.values()
    assert [member.name for member in without.members] == ["00001"]
    assert [member.name for member in with_target.members] == ["00003"]
    assert with_target.scores["target_estimate"] > 0.8
    assert "target_estimate" not in without.scores
    write_ensemble(run, with_target)
    assert read_ensemble(run) == with_target
    assert restricted(with_target, Caps(1), None).scores == with_target.scores


@pytest.mark.parametrize("folds_are_sites", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_with_target_images_and_labs_too_nothing_is_worse_than_the_best_candidate(
    tmp_path: Path, seed: int, folds_are_sites: bool
) -> None:
    run = RunDirectory(tmp_path)
    rng = np.random.default_rng(seed)
    for number in range(4):
        _training(run.trial(number).root, fold=0, skill=float(rng.uniform(1.0, 2.5)), seed=10 * seed + number)
        _sees_the_target(run.trial(number).root, float(rng.uniform(0.5, 2.0)), number)
    site_info = SiteInfo(folds_are_sites, tuple(rng.dirichlet(np.full(CLASSES, 5.0)).tolist()))
    ensemble = assemble(run, [*COMPLETED, (3, 0.4)], num_folds=FOLDS, metric="shift", site_info=site_info)
    together, best = (
        (scores["shift"] + scores["target_estimate"]) / 2 for scores in (ensemble.scores, ensemble.best_single[1])
    )
    assert together >= best - 1e-6
    assert together == pytest.approx(ensemble.trace[len(ensemble.trace) - 1][2], abs=0.2)
