"""Colour and stain operations against plain reference computations."""

from __future__ import annotations

import numpy as np
import pytest

from bloodauto.transforms.operations import colour
from bloodauto.transforms.physics import METHYLENE_BLUE_DENSITY
from bloodauto.types import Floats, Image
from tests.transforms.applying import apply_operation


@pytest.fixture
def image() -> Image:
    return np.random.default_rng(4).integers(0, 256, (31, 23, 3), dtype=np.uint8)


def levels(values: Floats) -> Image:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def test_colour_and_saturation_scale_the_distance_from_grey(image: Image) -> None:
    grey = image @ colour.GREY_WEIGHTS
    np.testing.assert_allclose(
        apply_operation("color", 1.0, image).astype(int), levels(grey)[..., None].repeat(3, 2), atol=1
    )
    half = 0.5 * image + 0.5 * grey[..., None]
    np.testing.assert_allclose(apply_operation("color", 0.5, image).astype(int), levels(half), atol=1)
    np.testing.assert_allclose(apply_operation("saturation", -0.5, image).astype(int), levels(half), atol=1)
    more = 1.5 * image - 0.5 * grey[..., None]
    np.testing.assert_allclose(apply_operation("saturation", 0.5, image).astype(int), levels(more), atol=1)


def test_hue_keeps_greys_and_lightness_and_moves_colours() -> None:
    greys = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    np.testing.assert_allclose(apply_operation("hue", 40.0, greys).astype(int), greys, atol=1)
    dull = np.array([[[150, 120, 110]]], np.uint8)
    turned = apply_operation("hue", 30.0, dull)
    weights = np.array([0.299, 0.587, 0.114])
    assert abs(float((turned.astype(float) @ weights - dull @ weights)[0, 0])) < 1
    there_and_back = apply_operation("hue", -30.0, turned)
    np.testing.assert_allclose(there_and_back.astype(int), dull, atol=2)
    assert np.abs(turned.astype(int) - dull).max() > 8


def test_stain_jitter_scales_the_density_of_all_stains() -> None:
    image = np.random.default_rng(0).integers(60, 256, (9, 9, 3), dtype=np.uint8)
    uniforms = np.array([[1.0, 1.0, 1.0, 0.5, 0.5, 0.5]])
    density = -np.log((image + 1.0) / 256.0)
    expected = levels(256 * np.exp(-1.5 * density) - 1)
    np.testing.assert_allclose(apply_operation("stain_jitter", 0.5, image, uniforms).astype(int), expected, atol=1)
    white = np.full((3, 3, 3), 255, np.uint8)
    np.testing.assert_array_equal(apply_operation("stain_jitter", 0.5, white, uniforms), white)


def test_stain_jitter_of_eosin_keeps_pure_methylene_blue() -> None:
    pixel = levels(256 * np.exp(-1.2 * METHYLENE_BLUE_DENSITY) - 1).reshape(1, 1, 3)
    uniforms = np.array([[0.5, 1.0, 0.5, 0.5, 0.5, 0.5]])
    np.testing.assert_allclose(apply_operation("stain_jitter", 0.5, pixel, uniforms).astype(int), pixel, atol=1)
