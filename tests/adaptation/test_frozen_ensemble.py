"""An exported ensemble is taken apart and put together again without a change of its predictions."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from bloodauto.adaptation.frozen_ensemble import FrozenEnsemble, ImageTransform, SiteHead
from bloodauto.errors import RunError
from bloodauto.evaluation.tta import zoom
from bloodauto.shift.corruptions.geometry import _warp_about_centre


def test_the_parts_predict_as_the_whole(ensemble_model, site_cells):
    images = site_cells(10).images
    outputs = FrozenEnsemble(ensemble_model).outputs(images)
    np.testing.assert_allclose(outputs.probabilities, ensemble_model.predict_on_batch(images), atol=1e-6)
    assert outputs.features.shape == (10, 24), "both members' features, averaged over the transforms of each"


def test_a_head_of_zeros_changes_nothing(ensemble_model, site_cells):
    images = site_cells(10).images
    ensemble = FrozenEnsemble(ensemble_model)
    nothing = SiteHead(np.zeros((24, 3)), np.zeros(3), 1.0)
    model = ensemble.with_head(ImageTransform(), nothing)
    np.testing.assert_allclose(model.predict_on_batch(images), ensemble_model.predict_on_batch(images), atol=1e-5)


def test_the_adapted_model_computes_what_was_fitted_and_loads_without_this_project(
    ensemble_model, site_cells, tmp_path
):
    images = site_cells(10).images
    ensemble = FrozenEnsemble(ensemble_model)
    rng = np.random.default_rng(0)
    head = SiteHead(rng.normal(size=(24, 3)), rng.normal(size=3), 0.5)
    transform = ImageTransform(1.3, (1.1, 0.9, 1.0), (3.0, -4.0, 0.0))
    ensemble.with_head(transform, head).save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False, safe_mode=True)
    log_odds = head.log_odds(ensemble.outputs(images, transform))
    expected = np.exp(log_odds - log_odds.max(axis=1, keepdims=True))
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(loaded.predict_on_batch(images), expected, atol=1e-5)
    assert loaded.input_shape == ensemble_model.input_shape
    assert loaded.inputs[0].dtype == "uint8"


@pytest.mark.parametrize("factor", [0.6, 0.85, 1.3, 1.8])
def test_magnifying_is_the_corruption_familys_zoom(site_cells, factor):
    images = site_cells(4).images
    ours = ImageTransform(factor).apply_to_array(images)
    theirs = np.stack([_warp_about_centre(image, zoom=factor) for image in images])
    assert ours.dtype == np.uint8
    # Beyond the frame both reflect, about the last pixel or beside it.
    border = 3 + max(0, round(12 * (1 - factor)))
    inner = slice(border, -border)
    difference = np.abs(ours.astype(int) - theirs.astype(int))[:, inner, inner]
    assert difference.mean() < 1.5
    np.testing.assert_array_equal(zoom(images.astype(np.float32), 1.0), images)


def test_a_model_without_members_is_refused():
    images = keras.Input((8, 8, 3), dtype="uint8")
    model = keras.Model(images, keras.layers.Dense(2, activation="softmax")(keras.layers.Flatten()(images)))
    with pytest.raises(RunError, match="expected members"):
        FrozenEnsemble(model)
