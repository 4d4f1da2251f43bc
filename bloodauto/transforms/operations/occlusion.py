"""Occlusion: parts of an image that are painted over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodauto.transforms.registry import image_filter
from bloodauto.types import Floats, Image


class Rectangle(NamedTuple):
    """The part of an image in rows ``top`` to ``bottom - 1`` and columns ``left`` to ``right - 1``."""

    top: int
    bottom: int
    left: int
    right: int


class Grid(NamedTuple):
    """A grid of square holes.

    Attributes:
        period_pixels: The distance between neighbouring holes.
        hole_pixels: The side of a hole.
        x_offset: How far the grid is shifted along x, in pixels.
        y_offset: How far the grid is shifted along y, in pixels.
    """

    period_pixels: int
    hole_pixels: int
    x_offset: int
    y_offset: int


def _mean_colour(image: Image) -> NDArray[np.uint8]:
    return np.rint(cv2.mean(image)[:3]).astype(np.uint8)


def _area_percent(fraction: float) -> float:
    """A side as a fraction -> an area in percent."""
    return 100 * fraction**2


def _squares(fractions: Floats, uniforms: Floats, height: int, width: int) -> Sequence[Rectangle]:
    """Squares whose side is a fraction of the shorter side, centred anywhere in the image, clipped at the edges."""
    side = fractions * min(height, width)
    top = np.rint(uniforms[:, 0] * height - side / 2).astype(np.int64)
    left = np.rint(uniforms[:, 1] * width - side / 2).astype(np.int64)
    length = np.rint(side).astype(np.int64)
    edges = np.stack(
        [np.maximum(top, 0), np.minimum(top + length, height), np.maximum(left, 0), np.minimum(left + length, width)],
        axis=1,
    )
    return [Rectangle(*row) for row in edges.tolist()]


@image_filter("cutout", draw=_squares, covers={"occlusion": _area_percent})
def cutout(image: Image, target: Image, hole: Rectangle) -> None:
    """Paints a rectangle in the image's mean colour."""
    np.copyto(target, image)
    target[hole.top : hole.bottom, hole.left : hole.right] = _mean_colour(image)


def _grids(fractions: Floats, uniforms: Floats, height: int, width: int) -> Sequence[Grid]:
    """Grids of a period that is drawn uniformly from an eighth to a third of the shorter side; holes are a fraction of it."""
    period = np.maximum(2, np.rint(min(height, width) * (1 / 8 + uniforms[:, 0] * (1 / 3 - 1 / 8)))).astype(np.int64)
    holes = np.rint(fractions * period).astype(np.int64)
    offsets = (uniforms[:, 1:3] * period[:, None]).astype(np.int64)
    return [Grid(*row) for row in np.concatenate([period[:, None], holes[:, None], offsets], axis=1).tolist()]


@image_filter("grid_mask", draw=_grids, covers={"occlusion": _area_percent})
def grid_mask(image: Image, target: Image, grid: Grid) -> None:
    """Paints a grid of square holes in the image's mean colour."""
    np.copyto(target, image)
    if grid.hole_pixels == 0:
        return
    height, width = image.shape[:2]
    rows = (np.arange(height) + grid.y_offset) % grid.period_pixels < grid.hole_pixels
    columns = (np.arange(width) + grid.x_offset) % grid.period_pixels < grid.hole_pixels
    target[rows[:, None] & columns[None, :]] = _mean_colour(image)
