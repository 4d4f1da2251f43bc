"""Images unlike the training images are detected by the networks' features."""

from __future__ import annotations

import numpy as np
import pytest

from bloodauto.errors import RunError
from bloodauto.export.ensemble_model import ExportedMember, build_ensemble_model
from bloodauto.export.ood import fit_ood_detector, mean_distances, ood_score
from bloodauto.run.artifacts import OodDetector

SIZE_PX = 24


@pytest.fixture(scope="module")
def dataset() -> tuple[np.ndarray, np.ndarray]:
    """Discs on a light field, dark or pale by their class."""
    rng = np.random.default_rng(0)
    labels = np.arange(240) % 2
    y, x = np.mgrid[:SIZE_PX, :SIZE_PX]
    centres = rng.uniform(10, 14, (240, 2))
    inside = np.hypot(y - centres[:, :1, None], x - centres[:, 1:, None]) < 7
    levels = np.where(inside, np.where(labels, 60, 140)[:, None, None], 220)[..., None]
    return np.clip(levels + rng.normal(0, 6, (240, SIZE_PX, SIZE_PX, 3)), 0, 255).astype(np.uint8), labels


@pytest.fixture(scope="module")
def model(small_pair):
    return build_ensemble_model([ExportedMember(small_pair[0], 0.7), ExportedMember(small_pair[1], 0.3)])


@pytest.fixture(scope="module")
def fitted(model, dataset):
    images, labels = dataset
    return fit_ood_detector(model, images, labels, np.arange(160), np.arange(160, 240), seed=0)


def predict(model, images: np.ndarray) -> np.ndarray:
    return np.asarray(model.predict(images, verbose=0))


def test_the_threshold_keeps_held_out_images_and_detects_images_without_a_cell(fitted, model, dataset) -> None:
    detector, ood_evaluation = fitted
    in_domain = dataset[0][160:]
    flagged = ood_score(detector, model, in_domain, predict(model, in_domain)) > detector.threshold
    assert flagged.mean() <= 0.06
    assert ood_evaluation.in_domain.coverage == pytest.approx(1 - flagged.mean())
    assert (
        ood_evaluation.in_domain.accuracy
        == (predict(model, in_domain).argmax(axis=1) == dataset[1][160:])[~flagged].mean()
    )
    assert 0 <= ood_evaluation.external.coverage < ood_evaluation.in_domain.coverage
    by_kind = {result.kind: result for result in ood_evaluation.synthetic_ood}
    assert list(by_kind) == ["background without a cell", "cells in pieces", "noise"]
    assert by_kind["noise"].auroc > 0.99
    assert by_kind["noise"].flagged > 0.95
    assert by_kind["cells in pieces"].flagged > 0.5
    assert all(result.images == 80 for result in ood_evaluation.synthetic_ood)


def test_the_score_is_the_sum_of_both_measures(fitted, model, dataset) -> None:
    detector, _ = fitted
    some, certain = dataset[0][:8], np.tile([1.0, 0.0], (8, 1))
    far = mean_distances(detector, model, some) / detector.distance_unit
    np.testing.assert_allclose(ood_score(detector, model, some, certain), far, atol=1e-6)
    uncertain = ood_score(detector, model, some, np.full((8, 2), 0.5))
    np.testing.assert_allclose(uncertain, far + np.log(2) / detector.entropy_unit, atol=1e-6)


def test_a_detector_reads_as_it_was_written(fitted, model, dataset, tmp_path) -> None:
    detector, _ = fitted
    detector.write(tmp_path / OodDetector.FILE)
    again = OodDetector.read(tmp_path / OodDetector.FILE)
    some = dataset[0][:8]
    probabilities = predict(model, some)
    np.testing.assert_array_equal(
        ood_score(again, model, some, probabilities), ood_score(detector, model, some, probabilities)
    )
    assert (again.threshold, again.distance_unit, again.entropy_unit) == (
        detector.threshold,
        detector.distance_unit,
        detector.entropy_unit,
    )


def test_a_detector_of_another_model_is_refused(fitted, model, dataset) -> None:
    detector, _ = fitted
    with pytest.raises(RunError, match="export again"):
        mean_distances(detector.replace(spaces=detector.spaces[:1]), model, dataset[0][:2])
