"""Small pictures of a data set's images, for the report."""

from __future__ import annotations

import base64

import cv2
import numpy as np

from bloodauto.data.clean import Cleaning
from bloodauto.data.dataset import CellDataset
from bloodauto.run.artifacts import CleanedPicture, CleaningRow, DataPictures, Picture
from bloodauto.types import Image, Rows

#: The longer side of a picture at most, and its bytes at most: a report with several hundred of them can be sent by mail.
PICTURE_SIDE_PX = 96
PICTURE_BYTES = 3000
_QUALITIES = (82, 70, 55, 40, 25, 12, 5)
_IMAGES_PER_CLASS = 12
_IMAGES_PER_FINDING = 16
_MAX_CLEANED_IMAGES = 64
#: Pictures of all classes together at most; of more classes than that, the first have one each.
_IMAGES_OF_CLASSES = 160


def jpeg_of(image: Image, *, side_px: int | None = PICTURE_SIDE_PX, max_bytes: int = PICTURE_BYTES) -> str:
    """An image as a small JPEG file.

    Args:
        image: uint8 (height, width, 3), RGB, 0-255.
        side_px: the longer side at most; None keeps the size.
        max_bytes: a lower quality is taken until the file has at most so many bytes; the lowest may have more.

    Returns:
        The file in base64.

    Example:
        >>> jpeg_of(np.zeros((200, 100, 3), np.uint8))[:4]
        '/9j/'
    """
    height, width = image.shape[:2]
    scale = 1.0 if side_px is None else min(side_px / max(height, width), 1.0)
    if scale < 1:
        size = max(round(width * scale), 1), max(round(height * scale), 1)
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
    content = b""
    for quality in _QUALITIES:
        _, encoded = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality])
        content = encoded.tobytes()
        if len(content) <= max_bytes:
            break
    return base64.b64encode(content).decode()


def picture_of(dataset: CellDataset, row: int) -> Picture:
    """A small picture of one image of a data set."""
    return Picture(name=str(dataset.names[row]), jpeg=jpeg_of(dataset.images[row]))


def data_pictures(dataset: CellDataset, cleaning: Cleaning) -> DataPictures:
    """Pictures of some kept images of each class, and of images in which cleaning found something.

    Args:
        dataset: the images.
        cleaning: of these images.

    Returns:
        At most 12 images of each class, evenly spaced in the data set, 160 in all, and at most 16 of each finding, 64 in all:
        excluded ones first, copies of one photograph side by side.
    """
    per_class = max(1, min(_IMAGES_PER_CLASS, _IMAGES_OF_CLASSES // max(len(dataset.class_names), 1)))
    classes = {
        name: tuple(
            picture_of(dataset, row)
            for row in _evenly(np.flatnonzero(cleaning.keep & (dataset.labels == label)), per_class)
        )
        for label, name in enumerate(dataset.class_names[:_IMAGES_OF_CLASSES])
    }
    return DataPictures(classes=classes, cleaned=_cleaned(dataset, cleaning))


def _evenly(rows: Rows, most: int) -> list[int]:
    count = min(len(rows), most)
    return [int(rows[index]) for index in np.linspace(0, len(rows) - 1, count).round().astype(int)] if count else []


def _cleaned(dataset: CellDataset, cleaning: Cleaning) -> tuple[CleanedPicture, ...]:
    rows = range(len(dataset))
    flagged = [row for row in rows if CleaningRow.is_finding(str(cleaning.findings[row]))]
    findings = sorted({str(cleaning.findings[row]) for row in flagged})
    chosen: list[int] = []
    for finding in findings:
        of_finding = [row for row in flagged if cleaning.findings[row] == finding]
        of_finding.sort(key=lambda row: (cleaning.actions[row] != "excluded", cleaning.clusters[row], row))
        chosen += of_finding[:_IMAGES_PER_FINDING]
    return tuple(
        CleanedPicture(
            picture=picture_of(dataset, row),
            label=dataset.class_names[int(dataset.labels[row])],
            finding=str(cleaning.findings[row]),
            action=str(cleaning.actions[row]),
            reason=str(cleaning.reasons[row]),
        )
        for row in chosen[:_MAX_CLEANED_IMAGES]
    )
