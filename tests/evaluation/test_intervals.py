"""The bootstrap over images: it measures the shift score, and it pairs."""

from __future__ import annotations

import numpy as np
import pytest

from bloodauto.data.clean import clean
from bloodauto.data.split import make_splits
from bloodauto.data.synthetic.generator import synthesize
from bloodauto.evaluation.fold_data import FoldData, prepare_fold
from bloodauto.evaluation.intervals import BootstrapResamples, bootstrap_resamples, percentile_interval
from bloodauto.evaluation.shift_score import score_shift
from bloodauto.shift.suite import ShiftSuite


@pytest.fixture(scope="module")
def fold_data() -> FoldData:
    dataset = synthesize(400, site="lab_a", seed=5, image_size_px=32)
    splits = make_splits(dataset, clean(dataset, enabled=False), seed=0)
    return prepare_fold(dataset, splits, ShiftSuite(seed=0, num_images=40), max_subset_images=60)


def predictions(fold_data: FoldData, skill: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = fold_data.subset_labels
    eye = np.eye(fold_data.num_classes)
    return (
        rng.normal(size=(len(labels), fold_data.num_classes)) + skill * eye[labels],
        rng.normal(size=(len(fold_data.plan), fold_data.num_classes)) + 0.6 * skill * eye[fold_data.shifted_labels],
    )


def test_every_image_once_gives_the_score_itself(fold_data: FoldData) -> None:
    labels = fold_data.subset_labels
    once = BootstrapResamples(fold_data, np.ones((1, len(labels)), dtype=np.int64))
    for skill in (0.0, 1.5, 4.0):
        clean_probabilities, shifted = predictions(fold_data, skill, seed=1)
        expected = score_shift(labels, clean_probabilities, fold_data.plan, shifted).objective
        assert once.shift_scores(clean_probabilities, shifted) == pytest.approx([expected])


def test_resamples_keep_the_size_of_every_class(fold_data: FoldData) -> None:
    labels = fold_data.subset_labels
    resamples = bootstrap_resamples(fold_data, seed=3, resamples=20)
    for label in np.unique(labels):
        assert (resamples.counts[:, labels == label].sum(axis=1) == (labels == label).sum()).all()
    assert not np.array_equal(resamples.counts[0], resamples.counts[1])
    assert np.array_equal(resamples.counts, bootstrap_resamples(fold_data, seed=3, resamples=20).counts)


def test_the_interval_contains_the_score_and_a_pair_is_compared_better_than_by_two_intervals(
    fold_data: FoldData,
) -> None:
    resamples = bootstrap_resamples(fold_data, seed=0, resamples=300)
    clean_probabilities, shifted = predictions(fold_data, 1.5, seed=2)
    scores = resamples.shift_scores(clean_probabilities, shifted)
    interval = percentile_interval(scores)
    labels = fold_data.subset_labels
    score = score_shift(labels, clean_probabilities, fold_data.plan, shifted).objective
    assert interval.low < score < interval.high
    # Nearly the same network: the difference is known far better than the score.
    nearly = shifted.copy()
    nearly[::40] = nearly[::40, ::-1]
    difference = percentile_interval(resamples.shift_scores(clean_probabilities, nearly) - scores)
    assert difference.high - difference.low < 0.5 * (interval.high - interval.low)
