"""Which trainings of a run become its ensemble."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bloodauto.ensemble.assemble import assemble, find_trained, read_ensemble, write_ensemble
from bloodauto.errors import RunError
from bloodauto.files import RunDirectory, shipped_folder, write_json
from bloodauto.trial.checkpoint import write_weights
from bloodauto.trial.material import Predictions

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
    Predictions(
        index=index,
        labels=labels[index],
        clean=_answers(rng, labels[index], skill),
        view_labels=views,
        view_groups=np.array(["stain", "light"] * 30),
        view_families=np.array(["stain_hue", "gamma"] * 30),
        view_severities=np.full(60, 3),
        view_weights=np.array([1.0, 0.25] * 30),
        shifted=_answers(rng, views, 0.7 * skill),
    ).write(folder / "predictions.npz")
    write_weights(folder / "best.npz", [np.zeros(3, np.float32)])
    write_json(folder / "result.json", {"parameters": 1000})
    recipe = shipped_folder("trials") / "tiny_cnn.yaml"
    (folder / "recipe.yaml").write_text(recipe.read_text(encoding="utf-8"), encoding="utf-8")


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    directory = RunDirectory(tmp_path)
    for number, skill in enumerate((2.0, 3.0, 1.0)):
        _training(directory.trial(number), fold=0, skill=skill, seed=number)
    return directory


COMPLETED = [(0, 0.7), (1, 0.8), (2, 0.5)]


def test_without_refits_the_trials_themselves_are_the_candidates(run: RunDirectory) -> None:
    ensemble = assemble(run, COMPLETED, num_folds=FOLDS, metric="shift")
    assert ensemble.best_single[0] == "00001"
    assert ensemble.scores["shift"] >= ensemble.best_single[1]["shift"]
    assert sum(member.weight for member in ensemble.members) == pytest.approx(1.0)
    assert ensemble.images == IMAGES


def test_a_bad_refit_is_not_shipped(run: RunDirectory) -> None:
    _training(run.refit("00001-fold0-seed1"), fold=0, skill=0.0, seed=11)
    ensemble = assemble(run, COMPLETED, num_folds=FOLDS, metric="shift")
    assert "00001-fold0-seed1" not in {member.name for member in ensemble.members}
    assert ensemble.scores["shift"] >= ensemble.best_single[1]["shift"]


def test_a_whole_set_of_folds_answers_for_every_image(run: RunDirectory) -> None:
    for fold in range(FOLDS):
        _training(run.refit(f"00001-fold{fold}-seed0"), fold=fold, skill=3.5, seed=20 + fold)
    ensemble = assemble(run, COMPLETED, num_folds=FOLDS, metric="shift")
    assert [member.name for member in ensemble.members] == ["00001-folds"]
    assert [one.fold for one in ensemble.members[0].networks] == [0, 1]
    assert ensemble.images == IMAGES * FOLDS


def test_folds_that_are_worse_than_the_search_itself_are_not_shipped(run: RunDirectory) -> None:
    for fold in range(FOLDS):
        _training(run.refit(f"00001-fold{fold}-seed0"), fold=fold, skill=0.2, seed=20 + fold)
    ensemble = assemble(run, COMPLETED, num_folds=FOLDS, metric="shift")
    assert ensemble.best_single[0] == "00001"
    assert ensemble.images == IMAGES


def test_an_incomplete_set_of_folds_counts_only_where_it_answers(run: RunDirectory) -> None:
    _training(run.refit("00001-fold1-seed0"), fold=1, skill=5.0, seed=21)
    ensemble = assemble(run, COMPLETED, num_folds=FOLDS, metric="shift")
    assert all(member.kind == "trial" for member in ensemble.members)


def test_a_training_without_all_its_files_is_no_candidate(run: RunDirectory) -> None:
    (run.trial(1) / "best.npz").unlink()
    assert [one.name for one in find_trained(run, COMPLETED)] == ["00000", "00002"]


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
