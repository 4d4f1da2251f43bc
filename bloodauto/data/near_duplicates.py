"""Near-duplicates: the same photograph, recompressed, resized, blurred, brightened, shifted a little, turned or mirrored.

Two stages. Candidates come from 12 x 12 colour thumbnails: a principal-component projection bounds the cosine of any
pair from above, so that one matrix product per orientation finds all pairs that can reach the threshold. Each candidate is
then verified on fine detail alone, the picture minus its blur, which a second photograph of a similar cell does not share.

Thresholds were set on 13,299 cells of one laboratory at 96 px, where the likeliest 28,000 pairs of different cells
correlate at most 0.82 (48 px) and 0.865 (96 px), and copies (JPEG quality 20, resizing to two thirds, blur of 1 px, noise,
brightness, shifts of 2 px) at least 0.91 at 48 px; those shifted by odd or half pixels at least 0.884 at 96 px.
Not found: copies turned by other than quarter turns, cropped, or shifted by more than about 3 % of the width; of images
smaller than 96 px also those shifted by fractions of a 48th of the width.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from bloodauto.data.disjoint import DisjointSets

_THUMBNAIL_PX = 12
_DETAIL_PX = 48
_DETAIL_BLUR_PX = 2.0
#: Standard deviation of the fine detail, in grey levels, below which there is none to compare.
_MIN_DETAIL = 0.2
_COMPONENTS = 64
_THUMBNAIL_COSINE = 0.93
_DETAIL_CORRELATION = 0.90
# A shift by half a pixel of the 48 px grid takes most of the agreement away, so what is not hopeless there is compared
# once more at 96 px, without the finest grain, which half a pixel of that grid would spoil in turn.
_MIN_CORRELATION = 0.5
_FINE_PX = 96
_FINE_BLURS_PX = (0.8, 4.0)
_FINE_CORRELATION = 0.885
# A cluster joins another only if the detail of their first images still agrees, so that a chain of small steps can not
# tie together cells that have nothing in common. Between two alterations of one picture it stays above.
_ROOT_CORRELATION = 0.7
_BLOCK_ROWS = 1024
# The likeliest partners that are verified for each image and orientation, besides the first one in the data.
_MAX_PARTNERS = 8


def _oriented(images: np.ndarray, orientation: int) -> np.ndarray:
    """(n, side, side, ...) in one of the eight orientations of a square: 0-3 quarter turns, 4-7 mirrored first."""
    if orientation >= 4:
        images = images[:, :, ::-1]
    return np.ascontiguousarray(np.rot90(images, orientation % 4, axes=(1, 2)))


def _descriptors(thumbnails: np.ndarray) -> np.ndarray:
    """float32 (n, side, side, 3) -> unit vectors (n, side * side * 3) without the mean colour."""
    centred = thumbnails - thumbnails.mean(axis=(1, 2), keepdims=True)
    flat = centred.reshape(len(thumbnails), -1)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)


def _fine_detail(image: np.ndarray) -> np.ndarray:
    grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (_FINE_PX, _FINE_PX), interpolation=cv2.INTER_AREA)
    grey = grey.astype(np.float32)
    return cv2.GaussianBlur(grey, (0, 0), _FINE_BLURS_PX[0]) - cv2.GaussianBlur(grey, (0, 0), _FINE_BLURS_PX[1])


def _correlation(fixed: np.ndarray, turned: np.ndarray, orientation: int) -> float:
    """Largest correlation of two details over shifts of up to a twelfth of the side, one of them turned first."""
    margin = len(fixed) // 12
    inner = slice(margin, len(fixed) - margin)
    pattern = np.ascontiguousarray(_oriented(turned[np.newaxis], orientation)[0, inner, inner])
    return float(cv2.matchTemplate(fixed, pattern, cv2.TM_CCOEFF_NORMED).max())


def _thumbnail_and_detail(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    thumbnail = cv2.resize(image, (_THUMBNAIL_PX, _THUMBNAIL_PX), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    grey = cv2.resize(grey, (_DETAIL_PX, _DETAIL_PX), interpolation=cv2.INTER_AREA).astype(np.float32)
    return thumbnail, grey - cv2.GaussianBlur(grey, (0, 0), _DETAIL_BLUR_PX)


def _best_partners(rows: np.ndarray, columns: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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


def _candidates(thumbnails: np.ndarray) -> np.ndarray:
    """int64 (m, 3): pairs whose thumbnails agree, the later image first, and the orientation of the earlier one."""
    descriptors = _descriptors(thumbnails)
    sample = descriptors[:: max(1, len(descriptors) // 4096)]
    _, vectors = np.linalg.eigh(sample.T @ sample)
    basis = vectors[:, : -_COMPONENTS - 1 : -1]

    def bounded(unit_vectors: np.ndarray) -> np.ndarray:
        # With the length of what the projection loses as one more coordinate, a dot product never falls short of the
        # true cosine (Cauchy-Schwarz on the lost parts).
        projected = unit_vectors @ basis
        lost = np.sqrt(np.maximum(0.0, 1.0 - (projected**2).sum(axis=1, keepdims=True)))
        return np.hstack([projected, lost]).astype(np.float32)

    plain = bounded(descriptors)
    found = []
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
            found.append(np.stack([rows, columns, np.full(len(rows), orientation)], axis=1))
    return np.concatenate(found)


def near_duplicate_clusters(images: np.ndarray) -> np.ndarray:
    """Clusters of images that are the same photograph.

    Costs one product of two (n, 65) matrices for each of eight orientations: seconds for 14,000 images. Images without
    any contrast are never matched.

    Args:
        images: uint8, (n, height, width, 3), RGB.

    Returns:
        int64 (n,): the index of the first image of the cluster; an image's own index where it has no duplicate.
    """
    count = len(images)
    sets = DisjointSets(count)
    if count < 2:
        return sets.leaders()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        prepared = list(pool.map(_thumbnail_and_detail, images))
    thumbnails = np.stack([thumbnail for thumbnail, _ in prepared]).astype(np.float32)
    details = np.stack([detail for _, detail in prepared])
    # Where nothing varies, the correlation is 0/0 and OpenCV answers 1.
    has_detail = (details.std(axis=(1, 2)) >= _MIN_DETAIL).tolist()
    has_fine_detail = min(images.shape[1:3]) >= _FINE_PX

    def are_same(first: int, second: int, orientation: int) -> bool:
        coarse = _correlation(details[first], details[second], orientation)
        if coarse >= _DETAIL_CORRELATION:
            return True
        if not has_fine_detail or coarse < _MIN_CORRELATION:
            return False
        fine = _correlation(_fine_detail(images[first]), _fine_detail(images[second]), orientation)
        return fine >= _FINE_CORRELATION

    for later, earlier, orientation in _candidates(thumbnails).tolist():
        leaders = sets.find(later), sets.find(earlier)
        if leaders[0] == leaders[1] or not (has_detail[later] and has_detail[earlier]):
            continue
        if not are_same(later, earlier, orientation):
            continue
        are_ends_alike = {later, earlier} == set(leaders) or any(
            _correlation(details[leaders[0]], details[leaders[1]], turn) >= _ROOT_CORRELATION for turn in range(8)
        )
        if are_ends_alike:
            sets.union(later, earlier)
    return sets.leaders()
