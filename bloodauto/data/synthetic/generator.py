"""Synthetic cells: labelled images of the eight classes, with planted faults, that need no download.

They are the data of the demonstration and of the tests. Results on them say that the machinery works, nothing about
real cells.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from bloodauto.data.dataset import COMPETITION_CLASSES, CellDataset
from bloodauto.data.synthetic.morphology import draw_cell
from bloodauto.data.synthetic.site import SyntheticSite, find_site, render_image
from bloodauto.errors import DataError
from bloodauto.run.files import atomic_path, write_arrays

#: Frequencies of the classes by default: the counts of PBC (Acevedo et al. 2020, doi:10.1016/j.dib.2020.105474).
PBC_COUNTS = (1218, 3117, 1551, 2895, 1214, 1420, 3329, 2348)

_SMALLEST_IMAGE_PX = 16
_GOLDEN_RATIO = (math.sqrt(5) - 1) / 2


def synthesize(
    num_images: int,
    *,
    site: SyntheticSite | str = "lab_a",
    seed: int = 0,
    image_size_px: int = 96,
    class_weights: Sequence[float] | None = None,
    duplicate_fraction: float = 0.0,
    contradicting_fraction: float = 0.0,
    outlier_copies: Sequence[int] = (),
    label_noise_fraction: float = 0.0,
    first_index: int = 0,
) -> CellDataset:
    """Draws labelled cells, and plants faults among them if asked.

    Image ``i`` depends on the laboratory's name, ``seed`` and ``first_index + i`` alone: a longer set begins with the
    shorter one, and ``first_index`` continues it with other cells. Planted images take the last places, so that the
    result always has ``num_images`` images. The same cells as another laboratory would show them: ``replace`` the
    laboratory's parts and keep its name.

    Args:
        num_images: how many, planted ones included.
        laboratory: a :class:`Laboratory` or the name of a ready one (``lab_a``, ``lab_b``, ``lab_c``).
        seed: >= 0.
        image_size_px: side of the images, at least 16; the field of view stays the same.
        class_weights: relative frequency of each of the eight classes; None for those of PBC. They are met evenly:
            any stretch of images holds close to its share of every class.
        duplicate_fraction: part of ``num_images`` that are byte-identical copies of other images (0 to below 1).
        contradicting_fraction: part of these copies that carry another label than their original.
        outlier_copies: for each planted outlier (a cell with a cartoon drawn over it) how often it occurs, byte for
            byte, its labels going round all classes.
        label_noise_fraction: probability that a drawn image has a wrong label, before copies are made. The true labels
            are those of the same call without label noise.
        first_index: number of the first image, for names and for what is drawn.

    Returns:
        Cells with :data:`COMPETITION_CLASSES`, labs filled in, groups and given splits empty.

    Raises:
        DataError: an argument is out of its range, or no laboratory has that name.
    """
    site = find_site(site)
    weights = _checked_weights(class_weights)
    for name, value in (
        ("duplicate_fraction", duplicate_fraction),
        ("contradicting_fraction", contradicting_fraction),
        ("label_noise_fraction", label_noise_fraction),
    ):
        if not 0 <= value <= 1:
            raise DataError(f"Synthetic cells: expected {name} in 0..1, got {value}.")
    for name, count, least in (
        ("num_images", num_images, 1),
        ("seed", seed, 0),
        ("image_size_px", image_size_px, _SMALLEST_IMAGE_PX),
        ("first_index", first_index, 0),
        *(("each of outlier_copies", copies, 1) for copies in outlier_copies),
    ):
        if count < least:
            raise DataError(f"Synthetic cells: expected {name} to be at least {least}, got {count}.")
    num_duplicates = round(duplicate_fraction * num_images)
    num_drawn = num_images - num_duplicates - sum(outlier_copies)
    if num_drawn < 1:
        raise DataError(
            f"Synthetic cells: {num_duplicates} duplicates and {sum(outlier_copies)} outlier copies leave nothing to "
            f"draw of {num_images} images. Ask for more images or fewer planted ones."
        )

    stream = (seed, zlib.crc32(site.name.encode()))
    images = np.empty((num_images, image_size_px, image_size_px, 3), np.uint8)
    labels = np.empty(num_images, np.int64)
    for i in range(num_drawn):
        images[i], labels[i] = _draw(site, stream, first_index + i, weights, image_size_px, label_noise_fraction)

    planting = np.random.default_rng([*stream, first_index, num_images])
    originals = planting.integers(num_drawn, size=num_duplicates)
    copies = slice(num_drawn, num_drawn + num_duplicates)
    images[copies], labels[copies] = images[originals], labels[originals]
    contradicting = num_drawn + planting.permutation(num_duplicates)[: round(contradicting_fraction * num_duplicates)]
    labels[contradicting] = _other_label(planting, labels[contradicting])

    start = num_drawn + num_duplicates
    for count in outlier_copies:
        images[start : start + count] = draw_cartoon_overlay(planting, images[planting.integers(num_drawn)])
        labels[start : start + count] = (np.arange(count) + planting.integers(8)) % len(COMPETITION_CLASSES)
        start += count
    return CellDataset(
        images=images,
        labels=labels,
        class_names=COMPETITION_CLASSES,
        names=np.array([f"{site.name}_{seed}_{first_index + i:06d}" for i in range(num_images)]),
        groups=np.full(num_images, ""),
        sites=np.full(num_images, site.name),
        predefined_splits=np.full(num_images, ""),
        source=f"synthetic cells ({site.name}, seed {seed})",
    )


def _checked_weights(class_weights: Sequence[float] | None) -> np.ndarray:
    """Weights that sum to 1, float64, (8,)."""
    weights = np.asarray(PBC_COUNTS if class_weights is None else class_weights, np.float64)
    if weights.shape != (len(COMPETITION_CLASSES),) or not np.isfinite(weights).all() or weights.min() < 0:
        raise DataError(
            f"Synthetic cells: expected class_weights as {len(COMPETITION_CLASSES)} finite numbers >= 0 "
            f"({', '.join(COMPETITION_CLASSES)}), got {class_weights!r}."
        )
    if weights.sum() <= 0:
        raise DataError("Synthetic cells: expected a class_weight above 0, all are 0.")
    return weights / weights.sum()


def _draw(
    site: SyntheticSite,
    stream: tuple[int, int],
    index: int,
    weights: np.ndarray,
    image_size_px: int,
    label_noise_fraction: float,
) -> tuple[np.ndarray, int]:
    """Image ``index`` of a stream, uint8 (size, size, 3), and its label as given (perhaps wrong)."""
    # A golden-ratio sequence instead of independent draws: few images already hold every class.
    place = (np.random.default_rng(stream).random() + index * _GOLDEN_RATIO) % 1
    label = min(int(np.searchsorted(np.cumsum(weights), place, side="right")), len(weights) - 1)
    # Separate streams, so that another image size or label noise leaves the cell as it is.
    for_cell, for_photograph, for_label = np.random.default_rng([*stream, index]).spawn(3)
    amounts = draw_cell(
        for_cell, COMPETITION_CLASSES[label], size_px=image_size_px, size_um=site.optics.field_of_view_um
    )
    image = render_image(for_photograph, amounts, site)
    if for_label.random() < label_noise_fraction:
        label = int(_other_label(for_label, np.array([label]))[0])
    return image, label


def _other_label(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """For each label another one, evenly drawn."""
    num_classes = len(COMPETITION_CLASSES)
    return (labels + rng.integers(1, num_classes, len(labels))) % num_classes


def draw_cartoon_overlay(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """A copy of an image with a cartoon on it, as in a figure cut out of a lecture: a ring, an arrow and a word.

    Args:
        rng: colours and the arrow's direction.
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


def concatenate(parts: Sequence[CellDataset]) -> CellDataset:
    """Several sets, for instance of several laboratories, as one.

    Raises:
        DataError: nothing to join, or the sets differ in class names or image size, or share a name.
    """
    if not parts:
        raise DataError("Joining cells: expected at least one set, got none.")
    first = parts[0]
    for part in parts[1:]:
        if part.class_names != first.class_names or part.images.shape[1:] != first.images.shape[1:]:
            raise DataError(
                f"Joining cells: {part.source} has classes {part.class_names} and images {part.images.shape[1:]}, "
                f"expected {first.class_names} and {first.images.shape[1:]} as in {first.source}."
            )
    names = np.concatenate([part.names for part in parts])
    unique, counts = np.unique(names, return_counts=True)
    if len(unique) < len(names):
        raise DataError(
            f"Joining cells: expected unique names, {unique[counts > 1][0]!r} occurs more than once. "
            "Give synthetic sets of one laboratory different seeds or first_index."
        )
    return replace(
        first,
        images=np.concatenate([part.images for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        names=names,
        groups=np.concatenate([part.groups for part in parts]),
        sites=np.concatenate([part.sites for part in parts]),
        predefined_splits=np.concatenate([part.predefined_splits for part in parts]),
        source=" + ".join(part.source for part in parts),
        problems=tuple(problem for part in parts for problem in part.problems),
    )


def write_dataset(dataset: CellDataset, path: Path) -> None:
    """Writes cells where :mod:`bloodauto.data` and other programs can read them.

    Args:
        path: with the suffix ``.npz`` one file of the arrays images (uint8), labels (int64), class_names, names,
            groups and sites (text), nothing pickled; otherwise a folder, which must not exist yet or be empty, with one
            folder of PNG files for each class that has images. Only the file keeps groups and sites.

    Raises:
        DataError: the folder holds something already, or two images would become the same file.
    """
    if path.suffix == ".npz":
        write_arrays(
            path,
            images=dataset.images,
            labels=dataset.labels,
            class_names=np.array(dataset.class_names),
            names=dataset.names.astype(np.str_),
            groups=dataset.groups.astype(np.str_),
            sites=dataset.sites.astype(np.str_),
        )
        return
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise DataError(f"{path}: expected no folder or an empty one to write images into. Choose another path.")
    files = [
        path / dataset.class_names[label] / f"{str(name).replace('/', '_')}.png"
        for label, name in zip(dataset.labels, dataset.names, strict=True)
    ]
    if len(set(files)) < len(files):
        raise DataError(f"{path}: two images would become the same file. Write an .npz file instead.")
    for file, image in zip(files, dataset.images, strict=True):
        _, encoded = cv2.imencode(".png", image[..., ::-1])
        with atomic_path(file) as temporary:
            temporary.write_bytes(encoded.tobytes())
