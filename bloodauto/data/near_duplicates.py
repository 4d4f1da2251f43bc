"""Finds near-duplicates: one photograph recompressed, resized, blurred, brightened, shifted a little, turned or mirrored.

Two stages. Candidates come from 12 x 12 colour thumbnails: a principal-component projection bounds the cosine of any
pair from above, so that one matrix product per orientation finds all pairs that can reach the threshold. Each candidate is
then verified on fine detail alone, the image minus its blur, which a second photograph of a similar cell does not share.

Thresholds were set on 13,299 cells of one site at 96 px, where the most similar 28,000 pairs of different cells correlate
at most 0.82 (48 px) and 0.865 (96 px), and copies (JPEG quality 20, resizing to two thirds, blur of 1 px, noise, brightness,
shifts of 2 px) at least 0.91 at 48 px; those shifted by odd or half pixels at least 0.884 at 96 px. Not detected: copies
turned by other than quarter turns, cropped, or shifted by more than about 3 % of the width; of images smaller than 96 px
also those shifted by fractions of a 48th of the width.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import DisjointSet

from bloodauto.types import Floats, Image, Images, Rows

_THUMBNAIL_PX = 12
_DETAIL_PX = 48
_DETAIL_BLUR_PX = 2.0
#: Standard deviation of the fine detail, in grey levels, below which there is none to compare.
_MIN_DETAIL = 0.2
_COMPONENTS = 64
_THUMBNAIL_COSINE = 0.93
_DETAIL_CORRELATION = 0.90
# A shift by half a pixel of the 48 px grid removes most of the correlation, so pairs above this much are compared again at
# 96 px, without the finest grain, which a shift by half a pixel of that grid would remove in turn.
_MIN_CORRELATION = 0.5
_FINE_PX = 96
_FINE_BLURS_PX = (0.8, 4.0)
_FINE_CORRELATION = 0.885
# A cluster joins another only if the detail of their first images correlates as well, so that a chain of small steps
# cannot join cells that have nothing in common. Two alterations of one photograph stay above this.
_ROOT_CORRELATION = 0.7
_BLOCK_ROWS = 1024
# The most similar partners that are verified for each image and orientation, besides the first one in the data.
_MAX_PARTNERS = 8


def _oriented(images: Floats, orientation: int) -> Floats:
    """(n, side, side, ...) in one of the eight orientations of a square: 0-3 quarter turns, 4-7 mirrored first."""
    if orientation >= 4:
        images = images[:, :, ::-1]
    return np.ascontiguousarray(np.rot90(images, orientation % 4, axes=(1, 2)))


def _descriptors(thumbnails: Floats) -> Floats:
    """float32 (n, side, side, 3) -> unit vectors (n, side * side * 3) without the mean colour."""
    centred = thumbnails - thumbnails.mean(axis=(1, 2), keepdims=True)
    flat = centred.reshape(len(thumbnails), -1)
    unit_vectors: Floats = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    return unit_vectors


def _fine_detail(image: Image) -> NDArray[np.float32]:
    """float32 (96, 96): detail between the two blurs of ``_FINE_BLURS_PX``."""
    grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (_FINE_PX, _FINE_PX), interpolation=cv2.INTER_AREA)
    grey = grey.astype(np.float32)
    smooth, coarse = (cv2.GaussianBlur(grey, (0, 0), sigma) for sigma in _FINE_BLURS_PX)
    detail: NDArray[np.float32] = smooth - coarse
    return detail


def _correlation(fixed: Floats, turned: Floats, orientation: int) -> float:
    """Largest correlation of two details over shifts of up to a twelfth of the side, one of them turned first."""
    margin = len(fixed) // 12
    inner = slice(margin, len(fixed) - margin)
    pattern = np.ascontiguousarray(_oriented(turned[np.newaxis], orientation)[0, inner, inner])
    return float(cv2.matchTemplate(fixed, pattern, cv2.TM_CCOEFF_NORMED).max())


def _thumbnail_and_detail(image: Image) -> tuple[Image, NDArray[np.float32]]:
    thumbnail = cv2.resize(image, (_THUMBNAIL_PX, _THUMBNAIL_PX), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    grey = cv2.resize(grey, (_DETAIL_PX, _DETAIL_PX), interpolation=cv2.INTER_AREA).astype(np.float32)
    return thumbnail, grey - cv2.GaussianBlur(grey, (0, 0), _DETAIL_BLUR_PX)


def _best_partners(rows: Rows, columns: Rows, values: Floats) -> tuple[Rows, Rows]:
    """Of each row's pairs, the first column and the ``_MAX_PARTNERS`` of the largest values."""
    order = np.lexsort((-values, rows))
    sorted_rows = rows[order]
    starts = np.flatnonzero(np.r_[True, sorted_rows[1:] != sorted_rows[:-1]]) if len(rows) else np.empty(0, np.int64)
    rank = np.arange(len(rows)) - np.repeat(starts, np.diff(np.r_[starts, len(rows)]))
    chosen = np.zeros(len(rows), bool)
    chosen[order[rank < _MAX_PARTNERS]] = True
    _, first = np.unique(rows, return_index=True)
    chosen[first] = True
    return rows[chosen], columns[chosen]


def _candidates(thumbnails: NDArray[np.float32]) -> Rows:
    """int64 (m, 3): pairs whose thumbnails agree, the later image first, and the orientation of the earlier one."""
    descriptors = _descriptors(thumbnails)
    sample = descriptors[:: max(1, len(descriptors) // 4096)]
    _, vectors = np.linalg.eigh(sample.T @ sample)
    basis = vectors[:, : -_COMPONENTS - 1 : -1]

    def bounded(unit_vectors: Floats) -> NDArray[np.float32]:
        # With the length of what the projection drops as one more coordinate, a dot product is never below the true
        # cosine (Cauchy-Schwarz on the dropped parts).
        projected = unit_vectors @ basis
        dropped = np.sqrt(np.maximum(0.0, 1.0 - (projected**2).sum(axis=1, keepdims=True)))
        return np.hstack([projected, dropped]).astype(np.float32)

    plain = bounded(descriptors)
    pairs = []
    for orientation in range(8):
        turned_descriptors = _descriptors(_oriented(thumbnails, orientation))
        turned = bounded(turned_descriptors)
        for start in range(0, len(plain), _BLOCK_ROWS):
            stop = min(start + _BLOCK_ROWS, len(plain))
            flat = np.flatnonzero(plain[start:stop] @ turned[:stop].T >= _THUMBNAIL_COSINE)
            rows, columns = np.divmod(flat, stop)
            rows += start
            earlier = columns < rows
            rows, columns = rows[earlier], columns[earlier]
            cosine = np.concatenate(
                [
                    np.einsum("ij,ij->i", descriptors[rows[part]], turned_descriptors[columns[part]])
                    for part in np.array_split(np.arange(len(rows)), len(rows) // 65536 + 1)
                ]
            )
            alike = cosine >= _THUMBNAIL_COSINE
            rows, columns = _best_partners(rows[alike], columns[alike], cosine[alike])
            pairs.append(np.stack([rows, columns, np.full(len(rows), orientation)], axis=1))
    return np.concatenate(pairs)


def near_duplicate_clusters(images: Images) -> Rows:
    """Clusters images that are the same photograph.

    Costs one product of two (n, 65) matrices for each of eight orientations: seconds for 14,000 images. Images without
    any contrast are never matched.

    Args:
        images: uint8, (n, height, width, 3), RGB.

    Returns:
        int64 (n,): the index of the first image of the cluster; an image's own index where it has no duplicate.
    """
    first_of_cluster = np.arange(len(images))
    if len(images) < 2:
        return first_of_cluster
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        prepared = list(pool.map(_thumbnail_and_detail, images))
    thumbnails = np.stack([thumbnail for thumbnail, _ in prepared]).astype(np.float32)
    details = np.stack([detail for _, detail in prepared])
    # Where nothing varies, the correlation is 0/0 and OpenCV returns 1.
    has_detail = (details.std(axis=(1, 2)) >= _MIN_DETAIL).tolist()
    clusters = DisjointSet(range(len(images)))
    for later, earlier, orientation in _candidates(thumbnails).tolist():
        if clusters.connected(later, earlier) or not (has_detail[later] and has_detail[earlier]):
            continue
        if not _are_same_photograph(images, details, (later, earlier), orientation):
            continue
        first_images = min(clusters.subset(later)), min(clusters.subset(earlier))
        if {later, earlier} == set(first_images) or _agree_in_any_orientation(details, *first_images):
            clusters.merge(later, earlier)
    for cluster in clusters.subsets():
        first_of_cluster[list(cluster)] = min(cluster)
    return first_of_cluster


def _are_same_photograph(images: Images, details: Floats, pair: tuple[int, int], orientation: int) -> bool:
    """Whether the fine detail of a pair correlates, the second image in the given orientation."""
    first, second = pair
    coarse = _correlation(details[first], details[second], orientation)
    if coarse >= _DETAIL_CORRELATION:
        return True
    if min(images.shape[1:3]) < _FINE_PX or coarse < _MIN_CORRELATION:
        return False
    fine = _correlation(_fine_detail(images[first]), _fine_detail(images[second]), orientation)
    return fine >= _FINE_CORRELATION


def _agree_in_any_orientation(details: Floats, first: int, second: int) -> bool:
    return any(_correlation(details[first], details[second], turn) >= _ROOT_CORRELATION for turn in range(8))
