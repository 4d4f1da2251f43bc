"""Joining out-of-fold predictions, and averaging them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bloodauto.ensemble.predictions import GroundTruth, OutOfFoldPredictions, WeightedEnsemble, check_same_images
from bloodauto.errors import RunError
from bloodauto.evaluation.calibration import apply_temperature
from bloodauto.run.artifacts import Calibration, SiteInfo, TrainedNetwork, TtaPredictions, ValidationPredictions
from tests.ensemble.ensemble_candidates import CLASSES, make_candidate, make_truth, predictions_of, truth_of

SOFTER = Calibration(temperature=2.0, per_class=None, cross_validated_nats=None)


def test_the_average_is_weighted_and_then_calibrated() -> None:
    first, second = np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([[0.0, 1.0], [0.9, 0.1]])
    ensemble = WeightedEnsemble({"a": 0.75, "b": 0.25})
    expected = np.array([[0.75, 0.25], [0.6, 0.4]])
    np.testing.assert_allclose(ensemble.average({"a": first, "b": second}), expected)
    np.testing.assert_allclose(ensemble.predict({"b": second, "a": first}), expected)
    calibrated = replace(ensemble, calibration=SOFTER).predict({"a": first, "b": second})
    np.testing.assert_allclose(calibrated, apply_temperature(expected, 2.0))


def test_out_of_fold_predictions_are_averaged_part_by_part() -> None:
    rng = np.random.default_rng(0)
    truth = make_truth(rng, 20, 10)
    predictions = {name: make_candidate(rng, truth, name, 2.0).predictions for name in ("a", "b")}
    average = WeightedEnsemble({"a": 0.5, "b": 0.5}, SOFTER).predict_out_of_fold(predictions)
    assert average.truth is truth
    for part in ("clean", "shifted", "target"):
        mean = np.asarray([getattr(predictions[name], part) for name in ("a", "b")], np.float64).mean(axis=0)
        np.testing.assert_allclose(getattr(average, part), apply_temperature(mean, 2.0), rtol=1e-6)


def test_rows_of_different_images_are_not_averaged() -> None:
    rng = np.random.default_rng(1)
    truth = make_truth(rng, 20, 10)
    first = make_candidate(rng, truth, "a", 2.0).predictions
    other = {
        "index": replace(truth, index=truth.index[::-1]),
        "shifted_labels": replace(truth, shifted_labels=(truth.shifted_labels + 1) % CLASSES),
        "shifted_groups": replace(truth, shifted_groups=truth.shifted_groups[::-1].copy()),
    }
    for changed in other.values():
        with pytest.raises(RunError, match="same images with the same --seed"):
            check_same_images({"a": first, "b": replace(first, truth=changed)})
    weights_differ = replace(first, truth=replace(truth, shifted_weights=truth.shifted_weights / 2))
    assert check_same_images({"a": first, "b": weights_differ}) is truth


def test_a_ground_truth_has_one_entry_for_each_image() -> None:
    with pytest.raises(AssertionError, match="at least one clean image"):
        truth_of(np.zeros(0, np.int64))
    with pytest.raises(AssertionError, match="labels, groups and weights"):
        GroundTruth(np.arange(2), np.zeros(2, np.int64), np.zeros(3, np.int64), np.array(["a"] * 2), np.ones(3))


def test_calibrated_predictions_keep_their_images() -> None:
    truth = truth_of(np.array([0, 1]))
    clean = np.array([[0.8, 0.2], [0.4, 0.6]])
    calibrated = predictions_of(truth, clean).calibrated(SOFTER)
    assert calibrated.truth is truth
    np.testing.assert_allclose(calibrated.clean, apply_temperature(clean, 2.0))


def _network(folder: Path, *, fold: int, index: np.ndarray, value: float) -> TrainedNetwork:
    """A network that predicts class 0 with ``value`` for every image of its fold."""
    clean = np.tile(np.array([value, 1 - value], np.float32), (len(index), 1))
    shifted = np.array([fold])
    ValidationPredictions(
        index=index,
        labels=index % 2,
        clean=clean,
        shifted_labels=shifted,
        shifted_groups=np.array([f"group {fold}"]),
        shifted_families=np.array(["gamma"]),
        shifted_severities=np.array([3]),
        shifted_weights=np.array([0.5]),
        shifted=clean[:1],
        target=np.tile(np.array([value, 1 - value], np.float32), (3, 1)),
    ).write(folder / "predictions.npz")
    return TrainedNetwork(name=folder.name, kind="refit", trial=0, fold=fold, folder=folder)


@pytest.fixture
def networks(tmp_path: Path) -> list[TrainedNetwork]:
    """One for each of two folds, whose images alternate."""
    values = (0.9, 0.6)
    folders = [tmp_path / str(fold) for fold in range(2)]
    for folder in folders:
        folder.mkdir()
    return [
        _network(folder, fold=fold, index=np.arange(fold, 6, 2), value=values[fold])
        for fold, folder in enumerate(folders)
    ]


def test_each_row_comes_from_the_network_that_its_image_was_held_out_from(networks: list[TrainedNetwork]) -> None:
    joined = OutOfFoldPredictions.load(networks, SiteInfo())
    np.testing.assert_array_equal(joined.truth.index, np.arange(6))
    np.testing.assert_array_equal(joined.truth.labels, [0, 1] * 3)
    np.testing.assert_allclose(joined.clean[:, 0], [0.9, 0.6] * 3)
    np.testing.assert_array_equal(joined.truth.shifted_groups, ["group 0", "group 1"])
    np.testing.assert_allclose(joined.shifted[:, 0], [0.9, 0.6])
    np.testing.assert_allclose(joined.target[:, 0], [0.75] * 3)
    assert joined.truth.held_out_sites is None
    assert joined.truth.class_fractions is None


def test_folds_that_are_sites_and_target_fractions_are_kept(networks: list[TrainedNetwork]) -> None:
    joined = OutOfFoldPredictions.load(networks, SiteInfo(folds_are_sites=True, class_fractions=(0.5, 0.5)))
    np.testing.assert_array_equal(joined.truth.held_out_sites, [0, 1] * 3)
    assert joined.truth.class_fractions == (0.5, 0.5)


def test_tta_predictions_replace_the_stored_ones(networks: list[TrainedNetwork]) -> None:
    with_tta = {
        network.name: TtaPredictions(
            clean=np.full((3, 2), network.fold, np.float32), shifted=np.full((1, 2), 7, np.float32)
        )
        for network in networks
    }
    joined = OutOfFoldPredictions.load(networks, SiteInfo(), with_tta)
    np.testing.assert_array_equal(joined.clean[:, 0], [0, 1] * 3)
    np.testing.assert_array_equal(joined.shifted[:, 0], [7, 7])
    np.testing.assert_allclose(joined.target[:, 0], [0.75] * 3)
