from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bloodauto.config.recipe import ClassSynthesis, Imbalance, OperationStep
from bloodauto.training.imbalance import cyclic_epoch_order, nearest_neighbours, smote_images, training_set

COUNTS = (12, 5, 1, 8)
LABELS = np.random.default_rng(0).permutation(np.repeat([0, 1, 2, 4], COUNTS))


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Each class has grey levels of its own: class c lies between 40 c and 40 c + 30."""
    rng = np.random.default_rng(1)
    return (rng.integers(0, 31, (len(LABELS), 20, 20, 3)) + 40 * LABELS[:, None, None, None]).astype(np.uint8)


def sampled(images: np.ndarray, sampling: Any, seed: int = 0, **fields: Any):
    return training_set(images, LABELS, 5, Imbalance(sampling=sampling, **fields), seed=seed)


def test_without_sampling_every_image_is_visited_once(images):
    outcome = sampled(images, "none")
    assert outcome.images is images
    np.testing.assert_array_equal(outcome.rows, np.arange(len(LABELS)))
    np.testing.assert_array_equal(outcome.class_counts, [12, 5, 1, 0, 8])


def test_oversampling_keeps_every_image_and_makes_classes_equal(images):
    outcome = sampled(images, "oversample")
    assert outcome.images is images, "no copies are made"
    np.testing.assert_array_equal(outcome.class_counts, [12, 12, 12, 0, 12])
    visits = np.bincount(outcome.rows, minlength=len(LABELS))
    assert visits.min() == 1
    for label in np.unique(LABELS):
        assert np.ptp(visits[label == LABELS]) <= 1, "within a class none is visited once more often than another"


def test_undersampling_leaves_each_class_as_many_as_the_smallest(images):
    outcome = sampled(images, "undersample")
    np.testing.assert_array_equal(outcome.class_counts, [1, 1, 1, 0, 1])
    assert len(set(outcome.rows)) == len(outcome.rows)


@pytest.mark.parametrize("sampling", ["oversample", "undersample", "smote", "borderline_smote", "synthesise"])
def test_a_seed_gives_the_same_set_again(images, sampling):
    first, same, other = (sampled(images, sampling, seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.rows, same.rows)
    np.testing.assert_array_equal(first.images, same.images)
    assert not (np.array_equal(first.rows, other.rows) and np.array_equal(first.images, other.images))


@pytest.mark.parametrize("sampling", ["smote", "borderline_smote", "synthesise"])
def test_made_images_fill_up_the_classes_behind_the_given_ones(images, sampling):
    fields: dict[str, Any] = (
        {"synthesise": ClassSynthesis(steps=(OperationStep(operation="flip_horizontal"),))}
        if sampling == "synthesise"
        else {}
    )
    outcome = sampled(images, sampling, **fields)
    np.testing.assert_array_equal(outcome.images[: len(images)], images)
    np.testing.assert_array_equal(outcome.class_counts, [12, 12, 12, 0, 12])
    assert outcome.images.dtype == np.uint8
    np.testing.assert_array_equal(np.unique(outcome.rows, return_counts=True)[1], 1)
    levels = outcome.images.reshape(len(outcome.images), -1) // 40
    synthetic = outcome.targets.argmax(axis=1)[:, None]
    assert (levels == synthetic).all(), "what is made of a class has the class's own levels"


def test_a_blend_lies_between_two_images_of_its_class(images):
    synthetic, synthetic_labels = smote_images(images, LABELS, np.random.default_rng(0), borderline=False)
    for image, label in zip(synthetic.astype(float), synthetic_labels, strict=True):
        members = images[label == LABELS].astype(float).reshape(-1, image.size)
        between = False
        for base in members:
            for partner in members:
                step = partner - base
                length = float(step @ step)
                fraction = float((image.ravel() - base) @ step) / length if length else 0.0
                away = np.abs(base + fraction * step - image.ravel()).max()
                between = between or (away <= 0.75 and -0.01 <= fraction <= 1.01)
        assert between


def test_borderline_smote_blends_only_images_near_another_class():
    """Two clouds of 30; of the small class 20 far from both, and 6 among the second cloud, so half of whose ten nearest
    are of the other class."""
    rng = np.random.default_rng(0)

    def level(base: int, n: int) -> np.ndarray:
        return (base + rng.integers(-2, 3, (n, 16, 16, 3))).astype(np.uint8)

    images = np.concatenate([level(20, 30), level(200, 30), level(110, 20), level(200, 6)])
    labels = np.repeat([0, 1, 2], [30, 30, 26])
    synthetic, synthetic_labels = smote_images(images, labels, np.random.default_rng(0), borderline=True)
    assert synthetic_labels.tolist() == [2, 2, 2, 2]
    assert synthetic.min() >= 198
    anywhere, _ = smote_images(images, labels, np.random.default_rng(0), borderline=False)
    assert anywhere.min() < 120


def test_a_single_image_is_repeated(images):
    synthetic, synthetic_labels = smote_images(images, LABELS, np.random.default_rng(0), borderline=False)
    alone = images[LABELS == 2][0]
    assert (synthetic_labels == 2).sum() == 11
    assert (synthetic[synthetic_labels == 2] == alone).all()


@pytest.mark.parametrize("count", [1, 5, 20])
def test_nearest_rows_are_those_of_scikit_learn(count):
    from sklearn.neighbors import NearestNeighbors

    rng = np.random.default_rng(count)
    points = rng.normal(size=(700, 4)).astype(np.float32)
    members = rng.permutation(700)[:600]
    outcome = nearest_neighbours(points[members], points, count, self_index=members)
    reference = NearestNeighbors(n_neighbors=count + 1).fit(points).kneighbors(points[members])[1][:, 1:]
    np.testing.assert_array_equal(outcome, reference)


def test_no_more_neighbours_than_there_are():
    points = np.array([[0.0], [1.0], [3.0]], np.float32)
    np.testing.assert_array_equal(
        nearest_neighbours(points, points, 5, self_index=np.arange(3)), [[1, 2], [0, 2], [1, 0]]
    )


@given(length=st.integers(1, 30), rows=st.lists(st.integers(0, 50), min_size=1, max_size=40), seed=st.integers(0, 99))
def test_an_endless_order_visits_rows_round_after_round(length, rows, seed):
    order = cyclic_epoch_order(np.array(rows), length, seed)
    stream = np.concatenate([order(epoch) for epoch in range(1, 8)])
    assert len(stream) == 7 * length
    for start in range(0, len(stream) - len(rows) + 1, len(rows)):
        assert sorted(stream[start : start + len(rows)]) == sorted(rows)
    np.testing.assert_array_equal(order(5), stream[4 * length : 5 * length], "an epoch does not depend on those before")


def test_rounds_differ():
    order = cyclic_epoch_order(np.arange(50), 50, 0)
    assert not np.array_equal(order(1), order(2))
