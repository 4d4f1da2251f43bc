"""Synthesises labelled images of the eight classes, with planted faults, that need no download.

They are the data of the demonstration and of the tests. Results on them show that the software works and nothing about
real cells.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from bloodauto.data.dataset import COMPETITION_CLASSES, CellDataset, empty_column
from bloodauto.data.synthetic.morphology import draw_cell
from bloodauto.data.synthetic.site import SyntheticSite, find_site, render_image
from bloodauto.errors import DataError
from bloodauto.types import Floats, Image, Labels

#: Frequencies of the classes by default: the counts of PBC (Acevedo et al. 2020, doi:10.1016/j.dib.2020.105474).
PBC_COUNTS = (1218, 3117, 1551, 2895, 1214, 1420, 3329, 2348)

_MIN_IMAGE_SIZE_PX = 16
_GOLDEN_RATIO = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class PlantedFaults:
    """Faults that real data sets have, planted among synthetic images. The default plants none.

    Attributes:
        duplicate_fraction: part of all images that are byte-identical copies of other images (0 to below 1).
        contradicting_fraction: part of these copies that carry another label than their original (0-1).
        outlier_copies: for each planted outlier (a cell with a cartoon drawn over it) how often it occurs, byte for
            byte, its labels going round all classes.
        label_noise_fraction: probability that a drawn image has a wrong label, before copies are made (0-1). The true
            labels are those of the same call without label noise.

    Raises:
        DataError: a fraction outside its range, or an outlier that does not occur.
    """

    duplicate_fraction: float = 0.0
    contradicting_fraction: float = 0.0
    outlier_copies: tuple[int, ...] = ()
    label_noise_fraction: float = 0.0

    def __post_init__(self) -> None:
        for name in ("duplicate_fraction", "contradicting_fraction", "label_noise_fraction"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise DataError(f"Synthetic images: expected {name} in 0..1, got {value}.")
        for copies in self.outlier_copies:
            _check_at_least("each of outlier_copies", copies, 1)


def synthesize(
    num_images: int,
    *,
    site: SyntheticSite | str = "lab_a",
    seed: int = 0,
    image_size_px: int = 96,
    class_weights: Sequence[float] | None = None,
    faults: PlantedFaults = PlantedFaults(),
    first_index: int = 0,
) -> CellDataset:
    """Draws labelled cells, and plants faults among them on request.

    Image ``i`` depends on the site's name, ``seed`` and ``first_index + i`` alone: a longer data set begins with the
    shorter one, and ``first_index`` continues it with other cells. Planted images come last, so that the result always
    has ``num_images`` images. The same cells as another site would show them: ``replace`` the site's parts and keep its
    name.

    Args:
        num_images: how many, planted ones included; at least 1.
        site: a ``SyntheticSite`` or the name of a predefined one (``lab_a``, ``lab_b``, ``lab_c``).
        seed: at least 0.
        image_size_px: side of the images, at least 16; the field of view stays the same.
        class_weights: relative frequency of each of the eight classes; None for those of PBC. Any stretch of images
            holds close to its proportion of every class.
        faults: what to plant.
        first_index: number of the first image, for names and for what is drawn; at least 0.

    Returns:
        Images of ``COMPETITION_CLASSES`` with their site; groups and predefined splits are empty.

    Raises:
        DataError: an argument is out of its range, or no site has that name.

    Example:
        >>> dataset = synthesize(16, site="lab_b", image_size_px=32)
        >>> dataset.images.shape, dataset.sites[0]
        ((16, 32, 32, 3), np.str_('lab_b'))
    """
    site = find_site(site)
    weights = _checked_weights(class_weights)
    _check_at_least("num_images", num_images, 1)
    _check_at_least("seed", seed, 0)
    _check_at_least("image_size_px", image_size_px, _MIN_IMAGE_SIZE_PX)
    _check_at_least("first_index", first_index, 0)
    num_duplicates = round(faults.duplicate_fraction * num_images)
    num_drawn = num_images - num_duplicates - sum(faults.outlier_copies)
    if num_drawn < 1:
        raise DataError(
            f"Synthetic images: {num_duplicates} duplicates and {sum(faults.outlier_copies)} outlier copies leave "
            f"nothing to draw of {num_images} images. Request more images or fewer planted ones."
        )

    stream = (seed, zlib.crc32(site.name.encode()))
    images = np.empty((num_images, image_size_px, image_size_px, 3), np.uint8)
    labels = np.empty(num_images, np.int64)
    for i in range(num_drawn):
        images[i], labels[i] = _draw(site, stream, first_index + i, weights, image_size_px, faults.label_noise_fraction)

    planting = np.random.default_rng([*stream, first_index, num_images])
    originals = planting.integers(num_drawn, size=num_duplicates)
    copies = slice(num_drawn, num_drawn + num_duplicates)
    images[copies], labels[copies] = images[originals], labels[originals]
    num_contradicting = round(faults.contradicting_fraction * num_duplicates)
    contradicting = num_drawn + planting.permutation(num_duplicates)[:num_contradicting]
    labels[contradicting] = _other_label(planting, labels[contradicting])

    start = num_drawn + num_duplicates
    for count in faults.outlier_copies:
        images[start : start + count] = draw_cartoon_overlay(planting, images[planting.integers(num_drawn)])
        labels[start : start + count] = (np.arange(count) + planting.integers(8)) % len(COMPETITION_CLASSES)
        start += count
    return CellDataset(
        images=images,
        labels=labels,
        class_names=COMPETITION_CLASSES,
        names=np.array([f"{site.name}_{seed}_{first_index + i:06d}" for i in range(num_images)]),
        groups=empty_column(num_images),
        sites=np.full(num_images, site.name),
        predefined_splits=empty_column(num_images),
        source=f"synthetic images ({site.name}, seed {seed})",
    )


def _check_at_least(name: str, value: int, minimum: int) -> None:
    if value < minimum:
        raise DataError(f"Synthetic images: expected {name} to be at least {minimum}, got {value}.")


def _checked_weights(class_weights: Sequence[float] | None) -> Floats:
    """Weights that sum to 1, float64, (8,)."""
    weights = np.asarray(PBC_COUNTS if class_weights is None else class_weights, np.float64)
    if weights.shape != (len(COMPETITION_CLASSES),) or not np.isfinite(weights).all() or weights.min() < 0:
        raise DataError(
            f"Synthetic images: expected class_weights as {len(COMPETITION_CLASSES)} finite numbers >= 0 "
            f"({', '.join(COMPETITION_CLASSES)}), got {class_weights!r}."
        )
    if weights.sum() <= 0:
        raise DataError("Synthetic images: expected a class_weight above 0, all are 0.")
    normalised: Floats = weights / weights.sum()
    return normalised


def _draw(
    site: SyntheticSite,
    stream: tuple[int, int],
    index: int,
    weights: Floats,
    image_size_px: int,
    label_noise_fraction: float,
) -> tuple[Image, int]:
    """Image ``index`` of a stream, uint8 (size, size, 3), and its label, which may be wrong by label noise."""
    # A golden-ratio sequence instead of independent draws: few images already hold every class.
    quantile = (np.random.default_rng(stream).random() + index * _GOLDEN_RATIO) % 1
    label = min(int(np.searchsorted(np.cumsum(weights), quantile, side="right")), len(weights) - 1)
    # Separate generators, so that another image size or label noise does not change the cell.
    cell_rng, photograph_rng, label_rng = np.random.default_rng([*stream, index]).spawn(3)
    amounts = draw_cell(
        cell_rng, COMPETITION_CLASSES[label], size_px=image_size_px, size_um=site.optics.field_of_view_um
    )
    image = render_image(photograph_rng, amounts, site)
    if label_rng.random() < label_noise_fraction:
        label = int(_other_label(label_rng, np.array([label]))[0])
    return image, label


def _other_label(rng: np.random.Generator, labels: Labels) -> Labels:
    """For each label another one, drawn uniformly."""
    num_classes = len(COMPETITION_CLASSES)
    others: Labels = (labels + rng.integers(1, num_classes, len(labels))) % num_classes
    return others


def draw_cartoon_overlay(rng: np.random.Generator, image: Image) -> Image:
    """Draws a ring, an arrow and a word on a copy of an image, as in a figure cut out of a lecture.

    Args:
        rng: draws colours and the arrow's direction.
        image: uint8, (size, size, 3), RGB.

    Returns:
        uint8, (size, size, 3), RGB.
    """
    drawn = np.ascontiguousarray(image).copy()
    size = len(drawn)
    line_px = max(1, round(size / 32))
    ring, arrow = ((255, 230, 0), (0, 160, 255)) if rng.random() < 0.5 else ((0, 200, 60), (230, 0, 0))
    middle = (size // 2, size // 2)
    cv2.circle(drawn, middle, round(0.36 * size), ring, line_px, cv2.LINE_AA)
    angle = rng.uniform(0, 2 * np.pi)
    tail, head = (
        (round(size / 2 + reach * size * math.cos(angle)), round(size / 2 + reach * size * math.sin(angle)))
        for reach in (0.52, 0.2)
    )
    cv2.arrowedLine(drawn, tail, head, arrow, line_px, cv2.LINE_AA, tipLength=0.4)
    cv2.rectangle(drawn, (0, round(0.8 * size)), (size, size), (255, 255, 255), -1)
    cv2.putText(
        drawn, "CELL ?", (round(0.06 * size), round(0.95 * size)), cv2.FONT_HERSHEY_SIMPLEX, size / 140, (0, 0, 0),
        max(1, round(size / 80)), cv2.LINE_AA,
    )  # fmt: skip
    return drawn
