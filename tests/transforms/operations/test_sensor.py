"""Noise and compression as declared."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from bloodauto.transforms.operations.sensor import Noise, read_out_noise
from bloodauto.types import Image
from tests.transforms.applying import apply_operation


@pytest.mark.parametrize("shape", [(64, 64, 3), (700, 800, 3)])
def test_noise_has_the_declared_deviation(shape: tuple[int, int, int]) -> None:
    grey = np.full(shape, 100, np.uint8)
    difference = apply_operation("noise", 20.0, grey).astype(float) - 100
    assert difference.std() == pytest.approx(20.0, rel=0.04)
    assert abs(difference.mean()) < 1
    shot = apply_operation("shot_noise", 20.0, grey).astype(float) - 100
    assert shot.std() == pytest.approx(20.0 * np.sqrt(100 / 255), rel=0.04)


@pytest.mark.parametrize("name", ["stain_jitter", "noise", "shot_noise"])
def test_large_images_are_done_in_pieces_with_the_result_of_each_alone(name: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (130, 170, 3), dtype=np.uint8)
    uniforms = np.random.default_rng(1).random((1, 6))
    result = apply_operation(name, 0.4 if name == "stain_jitter" else 20.0, image, uniforms)
    part = apply_operation(name, 0.4 if name == "stain_jitter" else 20.0, image[:58].copy(), uniforms)
    # The first piece of a large image is what a small image is: 58 rows are below its 10,000 pixels.
    np.testing.assert_array_equal(result[:58], part)
    assert (result[58:] != image[58:]).mean() > 0.5


def test_noise_does_not_repeat_within_an_image() -> None:
    image = np.full((400, 500, 3), 128, np.uint8)
    out = np.empty_like(image)
    read_out_noise(image, out, Noise(20.0, 12345))
    pieces = out.reshape(-1, 10_000, 3)
    for first in range(len(pieces)):
        for second in range(first):
            correlation = np.corrcoef(pieces[first].ravel(), pieces[second].ravel())[0, 1]
            assert abs(correlation) < 0.05


def test_jpeg_loses_more_at_lower_quality(textured_image: Image) -> None:
    losses = [
        np.abs(apply_operation("jpeg", loss, textured_image).astype(int) - textured_image).mean()
        for loss in (5, 45, 90)
    ]
    assert 0 < losses[0] < losses[1] < losses[2]
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 200
    np.testing.assert_allclose(apply_operation("jpeg", 20, red).astype(int), red, atol=8)


def test_jpeg_quality_is_on_the_codecs_own_scale(smooth_image: Image) -> None:
    encoded = cv2.imencode(".jpg", smooth_image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 30])[1]
    expected = cv2.imdecode(encoded, cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_array_equal(apply_operation("jpeg", 70.0, smooth_image), expected)
