"""Geometric operations move pixels to the declared positions."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from bloodauto.transforms.operations import geometry
from bloodauto.types import Image
from tests.transforms.applying import ZEROS, apply_operation


def test_pixels_move_to_the_declared_positions() -> None:
    image = np.zeros((20, 30, 3), np.uint8)
    image[5, 8] = 255

    def brightest(result: Image) -> tuple[int, ...]:
        return tuple(int(v) for v in np.unravel_index(result[..., 0].argmax(), result.shape[:2]))

    assert brightest(apply_operation("translate_x", 0.2, image)) == (5, 14)
    assert brightest(apply_operation("translate_x", -0.2, image)) == (5, 2)
    assert brightest(apply_operation("translate_y", 0.2, image)) == (9, 8)
    assert brightest(apply_operation("translate_y", -0.2, image)) == (1, 8)
    assert brightest(apply_operation("translate", 0.2, image, ZEROS)) == (5, 14)
    # x is read from x + 0.4 y: the pixel at x = 8 in row 5 is shown at x = 6.
    assert brightest(apply_operation("shear_x", 0.4, image)) == (5, 6)
    assert brightest(apply_operation("shear_x", -0.4, image)) == (5, 10)
    assert brightest(apply_operation("shear_y", 0.5, image)) == (1, 8)
    assert brightest(apply_operation("flip_horizontal", 1.0, image)) == (5, 21)
    assert brightest(apply_operation("flip_vertical", 1.0, image)) == (14, 8)


def test_rotation_is_counter_clockwise_and_quarter_turns_agree() -> None:
    square = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    np.testing.assert_array_equal(apply_operation("rotate_any", 90.0, square), np.rot90(square))
    np.testing.assert_array_equal(apply_operation("rotate", 90.0, square), np.rot90(square))
    quarters = {apply_operation("quarter_turn", 1.0, square, np.full((1, 6), u)).tobytes() for u in (0.1, 0.5, 0.9)}
    assert quarters == {np.rot90(square, turns).copy().tobytes() for turns in (1, 2, 3)}


def test_zoom_and_stretch_change_sizes_as_declared() -> None:
    image = np.zeros((61, 61, 3), np.uint8)
    cv2.circle(image, (30, 30), 10, (255, 255, 255), -1, cv2.LINE_AA)
    area = image.sum()
    assert apply_operation("zoom", 0.75, image).sum() / area == pytest.approx(2**1.5, rel=0.05)
    assert apply_operation("zoom", -0.75, image).sum() / area == pytest.approx(2**-1.5, rel=0.1)
    result = apply_operation("stretch", 0.5, image, ZEROS)
    assert result.sum() / area == pytest.approx(1.0, rel=0.03)
    columns, rows = (np.count_nonzero(result[..., 0].max(axis=axis) > 127) for axis in (0, 1))
    assert columns / rows == pytest.approx(2**0.5, rel=0.12)


def test_the_border_is_the_reflection_with_the_edge_pixel() -> None:
    image = np.arange(4, dtype=np.uint8).reshape(1, 4, 1).repeat(3, 2) * 10 + 10
    assert apply_operation("translate_x", 0.5, image)[0, :, 0].tolist() == [20, 10, 10, 20]


def test_symmetries_are_a_group_of_eight() -> None:
    matrices = geometry.symmetry(np.arange(8), 5, 5)
    products = {np.round(a @ b, 9).tobytes() for a in matrices for b in matrices}
    assert len({matrix.tobytes() for matrix in np.round(matrices, 9)}) == 8
    assert len(products) <= 16  # equal but for the sign of zeros
