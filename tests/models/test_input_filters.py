"""The filters between image and backbone."""

from __future__ import annotations

import time

import cv2
import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bloodauto.data.synthetic.generator import synthesize
from bloodauto.models.input_filters import REFERENCE_DENSITY, REFERENCE_SLIDE, apply_filters


def filter_model(*names: str, side: int = 96) -> keras.Model:
    images = keras.Input((side, side, 3), dtype="uint8")
    return keras.Model(images, apply_filters(names, images))


@pytest.fixture(scope="module")
def cells() -> np.ndarray:
    return synthesize(12, seed=5, image_size_px=96).images


@pytest.fixture(scope="module")
def normalise():
    model = filter_model("normalise_stain")
    return lambda images: np.asarray(model(images))


def in_another_light(images: np.ndarray, gains: tuple[float, float, float], gamma: float) -> np.ndarray:
    """Grey levels times a gain for each channel, then an exponent; dark enough that nothing saturates."""
    return np.rint(255 * (images / 255 * np.array(gains)) ** gamma).astype(np.uint8)


def test_the_same_cell_in_another_light_is_normalised_to_the_same_image(cells, normalise):
    reference = normalise(cells)
    for gains, gamma in (((0.9, 0.75, 0.95), 1.0), ((0.95, 0.95, 0.95), 1.4), ((0.7, 0.8, 0.9), 0.75)):
        other = in_another_light(cells, gains, gamma)
        before = np.abs(other.astype(float) - cells).mean()
        after = np.abs(normalise(other) - reference).mean()
        assert after < 3.0 < before / 3, (gains, gamma, before, after)


def test_slide_and_stain_come_to_the_reference(cells, normalise):
    filtered = normalise(in_another_light(cells, (0.85, 0.9, 0.8), 1.2))
    slide = np.quantile(filtered.reshape(len(filtered), -1, 3), 0.9, axis=1)
    np.testing.assert_allclose(slide, np.tile(REFERENCE_SLIDE, (len(filtered), 1)), atol=12)
    density = np.maximum(np.log(REFERENCE_SLIDE / np.maximum(filtered, 1)), 0)
    weight = density.mean(axis=-1, keepdims=True) ** 2
    mean = (weight * density).sum(axis=(1, 2)) / weight.sum(axis=(1, 2))
    np.testing.assert_allclose(np.median(mean, axis=0), REFERENCE_DENSITY, rtol=0.25)


def test_an_image_without_a_cell_stays_empty(normalise):
    rng = np.random.default_rng(1)
    empty = np.clip(rng.normal((240, 215, 190), 2, (2, 96, 96, 3)), 0, 255).astype(np.uint8)
    filtered = normalise(empty)
    np.testing.assert_allclose(filtered.mean(axis=(1, 2)), np.tile(REFERENCE_SLIDE, (2, 1)), atol=3)
    assert filtered.std(axis=(1, 2)).max() < 6


@pytest.mark.parametrize(
    "names",
    [
        ("normalise_stain",),
        ("grey",),
        ("sobel",),
        ("remove_background",),
        ("standardise",),
        ("standardise_density",),
        ("remove_background", "grey", "sobel"),
    ],
)
@settings(max_examples=10)
@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 2**16))
def test_numbers_between_0_and_255_whatever_comes(names, low, high, seed):
    rng = np.random.default_rng(seed)
    constant = np.full((1, 32, 32, 3), low, np.uint8)
    two_levels = np.where(rng.random((1, 32, 32, 1)) < rng.random(), low, high).astype(np.uint8).repeat(3, axis=-1)
    coloured = rng.integers(0, 256, (1, 1, 1, 3)).astype(np.uint8) * np.ones((1, 32, 32, 1), np.uint8)
    if names not in _MODELS_OF_32_PX:
        _MODELS_OF_32_PX[names] = filter_model(*names, side=32)
    filtered = np.asarray(_MODELS_OF_32_PX[names](np.concatenate([constant, two_levels, coloured])))
    assert np.isfinite(filtered).all()
    assert filtered.min() >= 0
    assert filtered.max() <= 255


_MODELS_OF_32_PX: dict[tuple[str, ...], keras.Model] = {}


@pytest.mark.parametrize(
    "name", ["grey", "sobel", "remove_background", "normalise_stain", "standardise", "standardise_density"]
)
def test_images_do_not_depend_on_their_neighbours(name, cells):
    model = filter_model(name)
    together = np.asarray(model(cells[:3]))
    for index in range(3):
        np.testing.assert_allclose(np.asarray(model(cells[index : index + 1]))[0], together[index], atol=1e-3)


def test_grey_is_luma(cells):
    filtered = np.asarray(filter_model("grey")(cells))
    luma = cells @ np.array([0.2126, 0.7152, 0.0722])
    np.testing.assert_allclose(filtered, np.repeat(luma[..., None], 3, axis=-1), atol=0.01)


def test_sobel_is_opencvs(cells):
    filtered = np.asarray(filter_model("sobel")(cells))
    for image, edges in zip(cells, filtered, strict=True):
        across, down = (
            cv2.Sobel(image.astype(np.float32), -1, *order, borderType=cv2.BORDER_REFLECT) for order in ((1, 0), (0, 1))
        )
        np.testing.assert_allclose(edges, np.minimum(np.hypot(across, down) / 2, 255), atol=0.01)
    assert filtered.max() > 100


def test_remove_background_leaves_the_nucleus_and_little_else():
    image = np.full((1, 96, 96, 3), (250, 226, 202), np.uint8)
    image[:, 5:25, 5:25] = (212, 170, 160)  # a red blood cell: much green, little red is absorbed
    image[:, 35:65, 35:65] = (80, 40, 120)  # a nucleus
    image[:, 65:80, 35:65] = (150, 130, 190)  # blue cytoplasm
    filtered = np.asarray(filter_model("remove_background")(image))[0]
    assert filtered[8:22, 8:22].min() > 240, "the red blood cell"
    assert filtered[-10:, :10].min() > 250, "the slide"
    np.testing.assert_allclose(filtered[40:60, 40:60], image[0, 40:60, 40:60], atol=2)
    np.testing.assert_allclose(filtered[68:77, 40:60], image[0, 68:77, 40:60], atol=6)


def test_standardise_takes_out_lamp_exposure_and_contrast(cells):
    model = filter_model("standardise")
    seen = np.asarray(model(cells))
    other = np.rint(np.array([30, 55, 10]) + cells * np.array([0.8, 0.55, 0.7])).astype(np.uint8)
    assert np.abs(other.astype(float) - cells).mean() > 20
    assert np.abs(np.asarray(model(other)) - seen).mean() < 1
    np.testing.assert_allclose(seen.mean(axis=(1, 2)), 160, atol=6)
    np.testing.assert_allclose(seen.std(axis=(1, 2)), 56, atol=8)


def test_standardise_density_takes_out_lamp_and_strength_of_stain(cells):
    model = filter_model("standardise_density")
    seen = np.asarray(model(cells))
    other = in_another_light(cells, (0.9, 0.7, 0.8), 0.8)
    assert np.abs(other.astype(float) - cells).mean() > 20
    assert np.abs(np.asarray(model(other)) - seen).mean() < 2
    darkest = cells.sum(axis=-1).reshape(len(cells), -1).argmin(axis=1)
    brightest = cells.sum(axis=-1).reshape(len(cells), -1).argmax(axis=1)
    levels = seen.sum(axis=-1).reshape(len(cells), -1)
    rows = np.arange(len(cells))
    assert (levels[rows, darkest] < levels[rows, brightest]).all(), "what is dense stays dark"


@pytest.mark.parametrize("name", ["standardise", "standardise_density"])
def test_noise_of_an_empty_image_is_not_made_a_cell(name):
    rng = np.random.default_rng(1)
    empty = np.clip(rng.normal((235, 215, 190), 2, (2, 96, 96, 3)), 0, 255).astype(np.uint8)
    filtered = np.asarray(filter_model(name)(empty))
    np.testing.assert_allclose(filtered.mean(axis=(1, 2)), 160, atol=1)
    assert filtered.std(axis=(1, 2)).max() < 20


def test_filters_run_in_their_order(cells):
    grey_first, other = filter_model("grey", "sobel"), filter_model("sobel", "grey")
    grey = np.asarray(filter_model("grey")(cells))
    images = keras.Input((96, 96, 3))
    sobel = keras.Model(images, apply_filters(["sobel"], images))
    np.testing.assert_allclose(np.asarray(grey_first(cells)), np.asarray(sobel(grey)), atol=0.01)
    assert not np.allclose(np.asarray(grey_first(cells)), np.asarray(other(cells)), atol=1.0)


@pytest.mark.slow
def test_normalising_is_cheap(cells):
    """Under 0.3 ms of one core an image was measured; five times that says something is wrong.

    The smallest of three, since threads of other libraries count in this process's time.
    """
    model = filter_model("normalise_stain")
    batch = np.tile(cells, (50, 1, 1, 1))
    model.predict(batch, batch_size=100, verbose=0)

    def cpu_seconds() -> float:
        started = time.process_time()
        model.predict(batch, batch_size=100, verbose=0)
        return time.process_time() - started

    assert min(cpu_seconds() for _ in range(3)) / len(batch) < 1.5e-3
