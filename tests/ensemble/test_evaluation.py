"""The ensemble at named sites, in the target domain, and beside its student."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bloodauto.data.clean import clean
from bloodauto.data.split import default_splits
from bloodauto.data.synthetic.generator import synthesize
from bloodauto.ensemble.evaluation import objective_agreement, score_sites
from bloodauto.run.artifacts import Metrics, TrainingResult
from bloodauto.run.directory import RunDirectory
from tests.ensemble.ensemble_candidates import predictions_of, truth_of


def test_each_site_is_scored_on_its_own_images() -> None:
    dataset = synthesize(240, seed=0, image_size_px=16)
    dataset = replace(dataset, sites=np.array(["near", "far", "far"] * 80))
    splits = default_splits(dataset, clean(dataset, enabled=False), seed=0)
    assert splits.folds_are_sites
    folds = list(range(splits.num_folds))
    index = np.sort(np.concatenate([splits.validation_index(fold) for fold in folds]))
    labels = dataset.labels[index]
    predicted = np.where(dataset.sites[index] == "near", labels, (labels + 1) % 8)
    predictions = predictions_of(replace(truth_of(labels), index=index), np.eye(8)[predicted])
    scores = {score.site: score for score in score_sites(splits, folds, predictions).sites}
    assert scores["near"].accuracy == scores["near"].balanced_accuracy == 1.0
    assert scores["far"].accuracy == scores["far"].balanced_accuracy == 0.0
    assert scores["near"].images + scores["far"].images == len(index)
    assert [score.site for score in score_sites(splits, [0], predictions).sites] == [splits.fold_names[0]]


def _run_with(folder: Path, scores: Sequence[tuple[float, float]]) -> RunDirectory:
    """A run whose trials have these objectives and accuracies."""
    run = RunDirectory(folder)
    for number, (objective, accuracy) in enumerate(scores):
        training = run.trial(number)
        training.root.mkdir(parents=True)
        training.result.write(
            TrainingResult(
                finished=True,
                objective=objective,
                metrics=Metrics(loss=0.5, accuracy=accuracy, balanced_accuracy=accuracy, macro_f1=accuracy),
                shift=objective,
                latency_ms=None,
                target_estimate=None,
                epochs=1,
                parameters=1,
                seconds=1.0,
                averaged_epochs=None,
                data_wait_fraction=0.0,
            )
        )
    return run


def test_the_objective_agrees_with_clean_accuracy_as_far_as_they_order_trials_alike(tmp_path: Path) -> None:
    # Ranks 1 to 5 against 2, 1, 3, 4, 5: Spearman 1 - 6 * 2 / (5 * 24).
    run = _run_with(tmp_path, [(0.1, 0.6), (0.2, 0.5), (0.3, 0.7), (0.4, 0.8), (0.5, 0.9)])
    agreement = objective_agreement(run, range(7))
    assert agreement is not None
    assert (agreement.trials, agreement.spearman) == (5, pytest.approx(0.9))
    assert objective_agreement(run, range(4)) is None, "four trials say nothing"


def test_without_differences_there_is_no_rank_correlation(tmp_path: Path) -> None:
    assert objective_agreement(_run_with(tmp_path, [(0.5, 0.1 * number) for number in range(6)]), range(6)) is None
