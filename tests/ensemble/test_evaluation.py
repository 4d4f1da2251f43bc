"""The ensemble at named sites, in the target domain, and beside its student."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bloodauto.data.clean import clean
from bloodauto.data.split import default_splits
from bloodauto.data.synthetic.generator import synthesize
from bloodauto.ensemble.evaluation import score_sites
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
