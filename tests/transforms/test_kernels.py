"""Blur kernels and correlating with them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from bloodauto.transforms import OPERATIONS
from bloodauto.transforms.engine import apply_stages, fuse
from bloodauto.transforms.filters import Noise, apply_noise
from bloodauto.transforms.kernels import correlate, disc_kernel, gaussian_kernel, streak_kernel
from bloodauto.transforms.steps import Border, Step


@pytest.mark.parametrize(
    "kernel",
    [disc_kernel(radius) for radius in (0.2, 1.0, 5.0, 6.3, 9.6, 14.0)]
    + [streak_kernel(length, angle) for length in (0.5, 9.0, 14.0, 20.0, 31.0) for angle in (0.0, 0.7, 1.6, 2.6)]
    + [gaussian_kernel(2.2)],
    ids=lambda kernel: f"{len(kernel)} px",
)
def test_correlating_equals_the_sum_of_shifted_images(textured_image, kernel):
    reach = len(kernel) // 2
    padded = cv2.copyMakeBorder(textured_image, reach, reach, reach, reach, cv2.BORDER_REFLECT).astype(np.float64)
    height, width = textured_image.shape[:2]
    expected = sum(
        kernel[y, x] * padded[y : y + height, x : x + width] for y in range(len(kernel)) for x in range(len(kernel))
    )
    out = np.empty_like(textured_image)
    correlate(textured_image, out, kernel)
    assert np.abs(out - expected).max() <= 0.55


@pytest.mark.parametrize("name", ["stain_jitter", "noise", "shot_noise"])
def test_long_images_are_done_in_pieces_with_the_result_of_each_alone(name):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (130, 170, 3), dtype=np.uint8)
    operation = OPERATIONS[name]
    payload = operation.prepare(np.array([0.8]), rng.random((1, 7)), 130, 170, Border("reflect"))[0]
    stages = fuse([Step(name, operation.kind, payload)])

    def run(part: np.ndarray) -> np.ndarray:
        out = np.zeros_like(part)
        apply_stages(part, out, np.empty_like(part), stages)
        return out

    whole = run(image)
    # The first piece of a long image is what a short image is: 58 rows are below its 10,000 pixels.
    np.testing.assert_array_equal(whole[:58], run(image[:58].copy()))
    assert (whole[58:] != image[58:]).mean() > 0.5


def test_noise_does_not_repeat_within_an_image():
    image = np.full((400, 500, 3), 128, np.uint8)
    out = np.empty_like(image)
    apply_noise(image, out, Noise(20.0, 12345))
    pieces = out.reshape(-1, 10_000, 3)
    for first in range(len(pieces)):
        for second in range(first):
            correlation = np.corrcoef(pieces[first].ravel(), pieces[second].ravel())[0, 1]
            assert abs(correlation) < 0.05
