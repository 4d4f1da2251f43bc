"""One image file -> one square uint8 RGB image, with a note of everything that was done to it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from bloodauto.data.dataset import FileProblem
from bloodauto.data.headers import HeaderError, read_header
from bloodauto.errors import DataError

#: Extensions that are read as images, in lower case.
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp"})
#: A header that claims more pixels is refused before anything is allocated: a cell needs no hundredth of it.
MAX_PIXELS = 64_000_000
MAX_FILE_BYTES = 512 * 2**20
#: 16-bit files whose brightest value stays below this use only a corner of their range (12-bit cameras do that).
_MIN_16_BIT_MAXIMUM = 8192
_EXIF_TRANSFORMS = {
    2: (None, 1),
    3: (cv2.ROTATE_180, None),
    4: (None, 0),
    5: (cv2.ROTATE_90_CLOCKWISE, 1),
    6: (cv2.ROTATE_90_CLOCKWISE, None),
    7: (cv2.ROTATE_90_CLOCKWISE, 0),
    8: (cv2.ROTATE_90_COUNTERCLOCKWISE, None),
}


@dataclass(frozen=True)
class DecodedFile:
    """One file after decoding: the image (uint8, (side, side, 3), RGB), or none where it was left out; and why."""

    image: np.ndarray | None
    problems: tuple[FileProblem, ...]


@dataclass(frozen=True)
class DecodedFiles:
    """Files after decoding.

    Attributes:
        images: uint8, (m, side, side, 3), RGB: one for each file that could be read, in the order of the files.
        kept: int64, (m,), which of the files these are.
        problems: notes on repaired and left-out files, in the order of the files.
    """

    images: np.ndarray
    kept: np.ndarray
    problems: tuple[FileProblem, ...]


def to_square(image: np.ndarray, side_px: int) -> np.ndarray:
    """uint8 (h, w, 3) -> (side_px, side_px, 3), with the shape of the cell kept.

    An image that is not square is first made so by repeating its outermost pixels on both sides of the shorter axis:
    stretching would turn round cells into oval ones, mirroring would invent second cells. Shrinks with INTER_AREA,
    which averages and so does not alias; enlarges with INTER_LINEAR, which does not overshoot.
    """
    height, width = image.shape[:2]
    if height != width:
        side = max(height, width)
        top, left = (side - height) // 2, (side - width) // 2
        image = cv2.copyMakeBorder(
            image, top, side - height - top, left, side - width - left, borderType=cv2.BORDER_REPLICATE
        )
    if image.shape[0] != side_px:
        shrinks = image.shape[0] > side_px
        image = cv2.resize(image, (side_px, side_px), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return image


def decode_image(data: bytes, name: str, side_px: int) -> DecodedFile:
    """Decodes one JPEG, PNG, TIFF or BMP.

    Never raises for what the bytes hold: broken files come back without an image, odd ones (grey, transparent, 16-bit,
    CMYK, palette, turned by EXIF, several pages) converted, each with a note. Transparent pixels become white, as the
    background of a smear is.
    """

    def excluded(finding: str, detail: str) -> DecodedFile:
        return DecodedFile(None, (FileProblem(name, finding, "excluded", detail),))

    try:
        header = read_header(data)
    except HeaderError as error:
        return excluded("unreadable", str(error))
    if header.width * header.height > MAX_PIXELS:
        return excluded("too_large", f"{header.width} x {header.height} pixels; at most {MAX_PIXELS:,} are decoded")
    if not header.is_complete:
        return excluded("truncated", f"the {header.format} ends early or is damaged")
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        return excluded("unreadable", f"OpenCV: {error.err}")
    if pixels is None or pixels.size == 0:
        return excluded("unreadable", f"the {header.format} could not be decoded")

    problems: list[FileProblem] = []

    def converted(finding: str, detail: str) -> None:
        problems.append(FileProblem(name, finding, "converted", detail))

    if pixels.dtype == np.uint16:
        brightest = int(pixels.max())
        if 0 < brightest < _MIN_16_BIT_MAXIMUM:
            return excluded(
                "narrow_range", f"16-bit values reach only {brightest} of 65535; scale them to the full range and save"
            )
        pixels = np.rint(pixels / 257.0).astype(np.uint8)
        converted("sixteen_bit", "divided by 257 to 0-255")
    elif pixels.dtype != np.uint8:
        return excluded("unsupported_depth", f"expected 8 or 16 bits per channel, got {pixels.dtype}")
    if header.is_palette:
        converted("palette", "colours looked up")
    if header.format == "JPEG" and header.channels == 4:
        converted("cmyk", "converted to RGB without a colour profile")
    if header.has_more_pages:
        converted("several_pages", "the first page is used")

    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if channels == 1:
        rgb = cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
        converted("grey", "the grey channel repeated three times")
    elif channels == 4:
        alpha = pixels[:, :, 3:].astype(np.float32) / 255.0
        over_white = np.rint(pixels[:, :, :3] * alpha + 255.0 * (1.0 - alpha)).astype(np.uint8)
        rgb = cv2.cvtColor(over_white, cv2.COLOR_BGR2RGB)
        if (alpha < 1.0).any():
            converted("transparent", "laid over white")
        elif header.format != "BMP":
            converted("alpha_channel", "an alpha channel without effect was dropped")
    elif channels == 3:
        rgb = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    else:
        return excluded("unsupported_channels", f"expected 1, 3 or 4 channels, got {channels}")

    if header.orientation != 1:
        rotation, flip_axis = _EXIF_TRANSFORMS[header.orientation]
        if rotation is not None:
            rgb = cv2.rotate(rgb, rotation)
        if flip_axis is not None:
            rgb = cv2.flip(rgb, flip_axis)
        converted("exif_rotation", f"turned upright (orientation {header.orientation})")
    return DecodedFile(to_square(rgb, side_px), tuple(problems))


def _read_bytes(path: Path) -> bytes:
    """The file's bytes; OSError for what is too large to be one image."""
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise OSError(f"{size:,} bytes; at most {MAX_FILE_BYTES:,} are read")
    return path.read_bytes()


def most_common_side(paths: Sequence[Path]) -> int:
    """The longer side of the commonest image size among the files, in pixels.

    Raises:
        DataError: no file has a readable header.
    """

    def size_of(path: Path) -> tuple[int, int] | None:
        try:
            header = read_header(_read_bytes(path))
        except (OSError, HeaderError):
            return None
        return (header.width, header.height) if header.width * header.height <= MAX_PIXELS else None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        sizes = Counter(size for size in pool.map(size_of, paths) if size is not None)
    if not sizes:
        raise DataError(f"{paths[0]}: expected an image, none of {len(paths)} files can be read as one.")
    commonest = max(sizes.values())
    return max(max(size) for size, count in sizes.items() if count == commonest)


def decode_files(paths: Sequence[Path], names: Sequence[str], side_px: int) -> DecodedFiles:
    """Decodes files on all cores into one array; unreadable ones are left out with a note.

    OpenCV decodes and resizes without holding Python's lock, so threads are enough.
    """
    images = np.empty((len(paths), side_px, side_px, 3), np.uint8)

    def decode_into(index: int) -> tuple[bool, tuple[FileProblem, ...]]:
        try:
            decoded = decode_image(_read_bytes(paths[index]), names[index], side_px)
        except OSError as error:
            return False, (FileProblem(names[index], "unreadable", "excluded", str(error)),)
        if decoded.image is not None:
            images[index] = decoded.image
        return decoded.image is not None, decoded.problems

    previous_level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            outcomes = list(pool.map(decode_into, range(len(paths))))
    finally:
        cv2.utils.logging.setLogLevel(previous_level)
    kept = np.flatnonzero([is_read for is_read, _ in outcomes])
    problems = tuple(problem for _, problems in outcomes for problem in problems)
    return DecodedFiles(images if len(kept) == len(paths) else images[kept], kept, problems)
