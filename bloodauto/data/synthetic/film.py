"""A window on a blood film, and the shapes and textures that cells are painted with.

A field of view holds, per pixel, the amount of four absorbers. No colour is decided here: a site's stain, light,
optics and sensor turn the amounts into an image (see ``site.py``). All lengths are micrometres, so that the same
cell can be photographed at any size and magnification.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodauto.types import Floats

#: What absorbs light, in the order of the first axis of :attr:`FieldOfView.amounts`.
CHROMATIN, BASOPHILIC, EOSIN, HAEMOGLOBIN = range(4)

_SUPERSAMPLING = 4
_SUBPIXEL_BITS = 4  # cv2 takes contour points as fixed-point numbers with this many fractional bits


class FieldOfView:
    """A square window on a blood film that cells are painted into.

    Attributes:
        amounts: float32, (4, size, size): amounts of the absorbers, around 1 where a structure is fully stained.
        size_um: side of the window in micrometres.
    """

    def __init__(self, size_px: int, size_um: float) -> None:
        self.size_px = size_px
        self.size_um = size_um
        self.px_per_um = size_px / size_um
        self.amounts = np.zeros((4, size_px, size_px), np.float32)

    def polygon(self, points_um: Floats) -> Floats:
        """Coverage of a closed contour, float32 0-1, (size, size), anti-aliased."""

        def fill(canvas: NDArray[np.uint8], origin_px: Floats) -> None:
            cv2.fillPoly(canvas, [self._fixed_point(points_um, origin_px)], 255, cv2.LINE_8, _SUBPIXEL_BITS)

        return self._coverage(points_um.min(0), points_um.max(0), fill)

    def discs(self, centres_um: Floats, radii_um: Floats) -> Floats:
        """Coverage of the union of discs, float32 0-1, (size, size), anti-aliased."""

        def fill(canvas: NDArray[np.uint8], origin_px: Floats) -> None:
            centres = self._fixed_point(centres_um, origin_px).tolist()
            fine_radii = radii_um * self.px_per_um * _SUPERSAMPLING * (1 << _SUBPIXEL_BITS)
            for centre, radius in zip(centres, np.round(fine_radii).astype(int).tolist(), strict=True):
                cv2.circle(canvas, centre, radius, 255, -1, cv2.LINE_8, _SUBPIXEL_BITS)

        reach_um = radii_um[:, None]
        return self._coverage((centres_um - reach_um).min(0), (centres_um + reach_um).max(0), fill)

    def _fixed_point(self, points_um: Floats, origin_px: Floats) -> NDArray[np.int32]:
        fine_px = (points_um * self.px_per_um - origin_px) * _SUPERSAMPLING - 0.5
        return np.round(fine_px * (1 << _SUBPIXEL_BITS)).astype(np.int32)

    def _coverage(self, min_um: Floats, max_um: Floats, fill: Callable[[NDArray[np.uint8], Floats], None]) -> Floats:
        """What ``fill`` draws on a finer grid, averaged down; only the box from ``min_um`` to ``max_um`` is drawn.

        cv2's own anti-aliasing draws outlines one pixel too wide, which enlarges small cells.
        """
        mask = np.zeros((self.size_px, self.size_px), np.float32)
        left, top = np.clip(np.floor(min_um * self.px_per_um) - 1, 0, self.size_px).astype(int).tolist()
        right, bottom = np.clip(np.ceil(max_um * self.px_per_um) + 1, 0, self.size_px).astype(int).tolist()
        if left < right and top < bottom:
            width, height = right - left, bottom - top
            canvas = np.zeros((height * _SUPERSAMPLING, width * _SUPERSAMPLING), np.uint8)
            fill(canvas, np.array([left, top]))
            mask[top:bottom, left:right] = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
            mask *= 1 / 255
        return mask

    def blurred(self, image: Floats, sigma_um: float) -> Floats:
        """Gaussian blur by a length on the film."""
        blurred: Floats = cv2.GaussianBlur(image, (0, 0), max(sigma_um * self.px_per_um, 0.2))
        return blurred

    def texture(self, rng: np.random.Generator, grain_um: float) -> Floats:
        """Smooth random texture of about unit variance, float32, (size, size), with spots about ``grain_um`` wide."""
        cells = max(2, round(self.size_um / grain_um))
        coarse = rng.standard_normal((cells, cells)).astype(np.float32)
        interpolation = cv2.INTER_CUBIC if cells <= self.size_px else cv2.INTER_AREA
        texture: Floats = cv2.resize(coarse, (self.size_px, self.size_px), interpolation=interpolation)
        return texture

    def distort_outline(self, rng: np.random.Generator, mask: Floats, reach_um: float, grain_um: float = 2.2) -> Floats:
        """A mask with its outline pushed in and out at random by about ``reach_um``."""
        reach_px = reach_um * self.px_per_um
        column, row = np.meshgrid(*2 * [np.arange(self.size_px, dtype=np.float32)])
        column += reach_px * self.texture(rng, grain_um)
        row += reach_px * self.texture(rng, grain_um)
        distorted: Floats = cv2.remap(mask, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return distorted

    def granules(
        self, rng: np.random.Generator, centre_um: Floats, reach_um: float, count: int, radius_um: float
    ) -> Floats:
        """Round grains scattered evenly over a disc, float32, (size, size), about 1 in the middle of each."""
        angle, distance = rng.uniform(0, 2 * np.pi, count), reach_um * np.sqrt(rng.random(count))
        positions_um = centre_um + np.stack([distance * np.cos(angle), distance * np.sin(angle)], axis=1)
        column, row = np.floor(positions_um * self.px_per_um).astype(int).T
        inside = (column >= 0) & (column < self.size_px) & (row >= 0) & (row < self.size_px)
        grains = np.zeros((self.size_px, self.size_px), np.float32)
        np.add.at(grains, (row[inside], column[inside]), rng.uniform(0.5, 1.3, count)[inside].astype(np.float32))
        sigma_px = 0.6 * radius_um * self.px_per_um
        grain_area_px = 2 * np.pi * sigma_px**2
        amounts: Floats = np.minimum(cv2.GaussianBlur(grains, (0, 0), max(sigma_px, 0.3)) * grain_area_px, 1.6)
        return amounts

    def paint(self, mask: Floats, layers: Mapping[int, Floats]) -> None:
        """Paints a cell onto the film: ``layers`` (absorber -> amount) replace whatever lay under ``mask``."""
        self.amounts *= 1 - mask
        for absorber, amount in layers.items():
            self.amounts[absorber] += np.maximum(amount, 0)


def contour(
    rng: np.random.Generator, centre_um: Floats, radius_um: float, roughness: float, elongation: float = 1.0
) -> Floats:
    """A closed irregular outline around a centre, float64, (64, 2), x and y in micrometres.

    A circle whose radius is perturbed by random Fourier terms of order 2 to 7 (``roughness``: relative size), then
    stretched ``elongation`` times along a random direction at constant area.
    """
    theta = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    order = np.arange(2, 8)[:, None]
    size = roughness * rng.standard_normal(6)[:, None] / order**0.7
    radius = radius_um * (1 + (size * np.cos(order * theta + rng.uniform(0, 2 * np.pi, 6)[:, None])).sum(0))
    radius = np.maximum(radius, 0.3 * radius_um)
    turn = rng.uniform(0, np.pi)
    along, across = radius * np.cos(theta) * np.sqrt(elongation), radius * np.sin(theta) / np.sqrt(elongation)
    x = along * np.cos(turn) - across * np.sin(turn)
    y = along * np.sin(turn) + across * np.cos(turn)
    return np.stack([x, y], axis=1) + centre_um


def bent_nucleus(
    field: FieldOfView,
    rng: np.random.Generator,
    centre_um: Floats,
    *,
    spine_radius_um: float,
    arc_degrees: float,
    half_width_um: float,
    lobes: int,
    waist: float,
) -> Floats:
    """Coverage of a nucleus that follows a bent spine: kidney, band, or lobes joined by bridges.

    Args:
        field: the window, which is not changed.
        rng: turns and deforms the spine.
        centre_um: float64, (2,), x and y of the centre of the spine's circle.
        spine_radius_um: radius of that circle.
        arc_degrees: the part of the circle that the spine follows.
        half_width_um: half the nucleus's width in the middle of a lobe.
        lobes: number of swellings along the spine.
        waist: width between two lobes relative to the lobes' (1: a smooth band).

    Returns:
        float32 0-1, (size, size).
    """
    count = 12 * lobes + 12
    t = np.linspace(0, 1, count)
    angle = rng.uniform(0, 2 * np.pi) + np.radians(arc_degrees) * (
        t - 0.5 + 0.04 * rng.standard_normal() * np.sin(6 * t)
    )
    reach = spine_radius_um * (1 + 0.22 * np.sin(2 * np.pi * (t * rng.uniform(0.5, 1.6) + rng.random())))
    spine = centre_um + np.stack([reach * np.cos(angle), reach * np.sin(angle)], axis=1)
    lobe_sizes = rng.uniform(0.82, 1.18, lobes)
    swelling = np.abs(np.sin(np.pi * lobes * np.clip(t * 0.9 + 0.05, 0, 1))) ** 0.8
    size = lobe_sizes[np.minimum((t * lobes).astype(int), lobes - 1)]
    if lobes == 1:
        swelling = 0.75 + 0.25 * swelling
    width = half_width_um * np.maximum(waist, (waist + (1 - waist) * swelling) * size)
    return field.distort_outline(rng, field.discs(spine, width), 0.35)


def chromatin(
    field: FieldOfView,
    rng: np.random.Generator,
    mask: Floats,
    *,
    density: float,
    clumping: float,
    grain_um: float = 0.7,
) -> Floats:
    """Amount of chromatin of a nucleus: textured, with a darker membrane. ``clumping`` 0.1 is lacy, 0.35 clumped."""
    # Clumps with pale gaps between them: the dark side of the texture is cut off, the pale one is not.
    texture = np.minimum(field.texture(rng, 0.6 * grain_um) + 0.6 * field.texture(rng, 2 * grain_um), 0.5)
    membrane = np.clip(1 - field.blurred(mask, 0.3), 0, 1)
    amounts: Floats = mask * density * np.clip(1 + clumping * texture + 0.6 * membrane, 0.3, 1.6)
    return amounts


def cytoplasm(
    field: FieldOfView, rng: np.random.Generator, mask: Floats, density: float, mottle: float = 0.12
) -> Floats:
    """Amount of a stain spread through a cell's body, a little mottled and denser at the membrane."""
    edge = np.clip(1 - field.blurred(mask, 0.5), 0, 1)
    amounts: Floats = mask * density * np.clip(1 + mottle * field.texture(rng, 0.6) + 0.5 * edge, 0.2, 2.0)
    return amounts
