"""Feature distance, entropy, and the synthetic images that an OOD detector is tested on."""

from __future__ import annotations

import numpy as np
import pytest

from bloodauto.evaluation.ood import (
    class_distances,
    combined_ood_score,
    fit_feature_space,
    make_synthetic_ood,
    mean_class_distances,
)
from bloodauto.run.artifacts import FeatureSpace, OodDetector


def _space(rng: np.random.Generator, *, typical_distance: float = 1.0) -> tuple[FeatureSpace, np.ndarray]:
    """A space of three features with two classes, and its full covariance."""
    directions, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    space = FeatureSpace(
        means=rng.normal(size=(2, 3)).astype(np.float32),
        directions=directions[:, :2].astype(np.float32),
        variances=np.array([4.0, 1.0], np.float32),
        other_variance=0.25,
        typical_distance=typical_distance,
    )
    return space, directions @ np.diag([4.0, 1.0, 0.25]) @ directions.T


def test_the_distance_is_mahalanobis_where_all_directions_are_kept() -> None:
    rng = np.random.default_rng(1)
    space, covariance = _space(rng, typical_distance=2.0)
    features = rng.normal(size=(5, 3))
    difference = features[:, None] - space.means
    expected = np.einsum("ncd,de,nce->nc", difference, np.linalg.inv(covariance), difference).min(axis=1) / 2
    np.testing.assert_allclose(class_distances(space, features), expected, rtol=1e-5)


def test_distances_are_averaged_over_the_members() -> None:
    rng = np.random.default_rng(2)
    spaces = [_space(rng)[0], _space(rng)[0]]
    features = [rng.normal(size=(4, 3)), rng.normal(size=(4, 3))]
    both = [class_distances(space, rows) for space, rows in zip(spaces, features, strict=True)]
    np.testing.assert_allclose(mean_class_distances(spaces, features), np.mean(both, axis=0))


def test_the_score_is_the_sum_of_distance_and_entropy_in_their_units() -> None:
    space, _ = _space(np.random.default_rng(3))
    detector = OodDetector(spaces=(space,), distance_unit=2.0, entropy_unit=0.5, threshold=1.0)
    distances = np.array([1.0, 4.0])
    certain, uncertain = np.tile([1.0, 0.0], (2, 1)), np.full((2, 2), 0.5)
    np.testing.assert_allclose(combined_ood_score(detector, distances, certain), [0.5, 2.0], atol=1e-9)
    np.testing.assert_allclose(
        combined_ood_score(detector, distances, uncertain), np.array([0.5, 2.0]) + np.log(2) / 0.5
    )


def test_a_fitted_space_has_the_class_means_and_the_variances_within_the_classes() -> None:
    rng = np.random.default_rng(4)
    labels = np.arange(4000) % 2
    spread = np.array([3.0, 1.0, 0.5])
    features = (np.array([[5.0, 0, 0], [-5.0, 0, 0]])[labels] + spread * rng.normal(size=(4000, 3))).astype(np.float32)
    space = fit_feature_space(features, labels)
    np.testing.assert_allclose(space.means, [[5, 0, 0], [-5, 0, 0]], atol=0.2)
    np.testing.assert_allclose(space.variances, [9.0, 1.0], rtol=0.1)
    assert space.other_variance == pytest.approx(0.25, rel=0.1)
    np.testing.assert_allclose(np.abs(space.directions), np.eye(3)[:, :2], atol=0.05)


def test_synthetic_images_keep_their_size_and_pieces_keep_their_pixels() -> None:
    images = np.random.default_rng(2).integers(0, 256, (3, 30, 26, 3), dtype=np.uint8)
    synthetic = make_synthetic_ood(images, np.random.default_rng(0))
    assert all(kind.shape == images.shape and kind.dtype == np.uint8 for kind in synthetic.values())
    pieces = synthetic["cells in pieces"]
    np.testing.assert_array_equal(np.sort(pieces.reshape(3, -1)), np.sort(images.reshape(3, -1)))
    assert not np.array_equal(pieces, images)
