"""Decodes image files into square uint8 RGB images, with a note of everything that was done to each."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodauto.config.machine import available_cores, available_memory_bytes
from bloodauto.data.dataset import FileProblem
from bloodauto.data.headers import HeaderError, ImageHeader, read_header
from bloodauto.errors import DataError
from bloodauto.types import Image, Images, Rows

#: A header that claims more pixels is refused before anything is allocated; a cell needs less than a hundredth of it.
MAX_PIXELS = 64_000_000
#: A larger file is not read at all.
MAX_FILE_BYTES = 512 * 2**20
#: Images may take this part of the free memory: cleaning and the network need the rest.
_MEMORY_FRACTION = 0.8
_MIN_SENSIBLE_PX = 16
#: 16-bit files whose brightest value stays below this use only a corner of their range (12-bit cameras do that).
_MIN_16_BIT_MAXIMUM = 8192
#: EXIF orientation -> rotation, then axis of a flip, as OpenCV takes them.
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
    """One file after decoding.

    Attributes:
        image: uint8, (side, side, 3), RGB; None where the file was excluded.
        problems: why it was excluded, or which conversions it needed.
    """

    image: Image | None
    problems: tuple[FileProblem, ...]


@dataclass(frozen=True)
class DecodedFiles:
    """Files after decoding.

    Attributes:
        images: uint8, (m, side, side, 3), RGB: one for each file that could be read, in the order of the files.
        kept: int64, (m,), which of the files these are.
        problems: notes on repaired and excluded files, in the order of the files.
    """

    images: Images
    kept: Rows
    problems: tuple[FileProblem, ...]


def to_square(image: Image, side_px: int) -> Image:
    """Pads an image to a square and resizes it, so that cells keep their shape.

    An image that is not square is first made so by repeating its outermost pixels on both sides of the shorter axis:
    stretching would turn round cells into oval ones, mirroring would invent second cells. Shrinks with INTER_AREA,
    which averages and so does not alias; enlarges with INTER_LINEAR, which does not overshoot.

    Args:
        image: uint8, (height, width, 3).
        side_px: side of the result.

    Returns:
        uint8, (side_px, side_px, 3).
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


class _UnusableError(Exception):
    """The file cannot become an image.

    Attributes:
        finding: as in ``FileProblem``.
        detail: as in ``FileProblem``.
    """

    def __init__(self, finding: str, detail: str) -> None:
        super().__init__(detail)
        self.finding = finding
        self.detail = detail


@dataclass(frozen=True)
class _Conversion:
    """A repair that an image needed; the fields are those of ``FileProblem``."""

    finding: str
    detail: str


def decode_image(data: bytes, name: str, side_px: int) -> DecodedFile:
    """Decodes one JPEG, PNG, TIFF or BMP.

    Never raises for what the bytes hold: broken files come back without an image, odd ones (grey, transparent, 16-bit,
    CMYK, palette, turned by EXIF, several pages) converted, each with a note. Transparent pixels become white, as the
    background of a smear is.

    Args:
        data: the file's bytes.
        name: the file's name, for the notes.
        side_px: side of the result; see ``to_square``.
    """
    try:
        header = _checked_header(data)
        pixels, conversions = _eight_bits(_stored_pixels(data, header))
        conversions += _header_conversions(header)
        rgb, colour_conversions = _as_rgb(pixels, header)
        conversions += colour_conversions
    except _UnusableError as error:
        return DecodedFile(None, (FileProblem(name, error.finding, "excluded", error.detail),))
    if header.orientation != 1:
        rgb = _upright(rgb, header.orientation)
        conversions.append(_Conversion("exif_rotation", f"turned upright (orientation {header.orientation})"))
    problems = tuple(FileProblem(name, note.finding, "converted", note.detail) for note in conversions)
    return DecodedFile(to_square(rgb, side_px), problems)


def _checked_header(data: bytes) -> ImageHeader:
    """The header of a file that is worth decoding."""
    try:
        header = read_header(data)
    except HeaderError as error:
        raise _UnusableError("unreadable", str(error)) from error
    if header.width * header.height > MAX_PIXELS:
        raise _UnusableError(
            "too_large", f"{header.width} x {header.height} pixels; at most {MAX_PIXELS:,} are decoded"
        )
    if not header.is_complete:
        raise _UnusableError("truncated", f"the {header.format} ends early or is damaged")
    return header


def _stored_pixels(data: bytes, header: ImageHeader) -> NDArray[Any]:
    """Pixels in the depth and with the channels that the file has: (height, width) or (height, width, c), BGR."""
    try:
        pixels: NDArray[Any] | None = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise _UnusableError("unreadable", f"OpenCV: {error.err}") from error
    if pixels is None or pixels.size == 0:
        raise _UnusableError("unreadable", f"the {header.format} could not be decoded")
    return pixels


def _eight_bits(pixels: NDArray[Any]) -> tuple[NDArray[np.uint8], list[_Conversion]]:
    if pixels.dtype == np.uint8:
        return pixels, []
    if pixels.dtype != np.uint16:
        raise _UnusableError("unsupported_depth", f"expected 8 or 16 bits per channel, got {pixels.dtype}")
    brightest = int(pixels.max())
    if 0 < brightest < _MIN_16_BIT_MAXIMUM:
        raise _UnusableError(
            "narrow_range", f"16-bit values reach only {brightest} of 65535; scale them to the full range and save"
        )
    return np.rint(pixels / 257.0).astype(np.uint8), [_Conversion("sixteen_bit", "divided by 257 to 0-255")]


def _header_conversions(header: ImageHeader) -> list[_Conversion]:
    """What OpenCV converts without saying so."""
    conversions = []
    if header.is_palette:
        conversions.append(_Conversion("palette", "colours looked up"))
    if header.format == "JPEG" and header.channels == 4:
        conversions.append(_Conversion("cmyk", "converted to RGB without a colour profile"))
    if header.has_more_pages:
        conversions.append(_Conversion("several_pages", "the first page is used"))
    return conversions


def _as_rgb(pixels: NDArray[np.uint8], header: ImageHeader) -> tuple[Image, list[_Conversion]]:
    """uint8 (height, width), or (height, width, c) in OpenCV's order, -> RGB."""
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if channels == 1:
        return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB), [_Conversion("grey", "the grey channel repeated three times")]
    if channels == 3:
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), []
    if channels != 4:
        raise _UnusableError("unsupported_channels", f"expected 1, 3 or 4 channels, got {channels}")
    alpha = pixels[:, :, 3:].astype(np.float32) / 255.0
    over_white = np.rint(pixels[:, :, :3] * alpha + 255.0 * (1.0 - alpha)).astype(np.uint8)
    conversions = []
    if (alpha < 1.0).any():
        conversions.append(_Conversion("transparent", "laid over white"))
    elif header.format != "BMP":
        conversions.append(_Conversion("alpha_channel", "an alpha channel without effect was dropped"))
    return cv2.cvtColor(over_white, cv2.COLOR_BGR2RGB), conversions


def _upright(rgb: Image, orientation: int) -> Image:
    rotation, flip_axis = _EXIF_TRANSFORMS[orientation]
    if rotation is not None:
        rgb = cv2.rotate(rgb, rotation)
    return rgb if flip_axis is None else cv2.flip(rgb, flip_axis)


def _read_bytes(path: Path) -> bytes:
    """The file's bytes; OSError for what is too large to be one image."""
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise OSError(f"{size:,} bytes; at most {MAX_FILE_BYTES:,} are read")
    return path.read_bytes()


@dataclass(frozen=True)
class CommonSize:
    """The size to which files are decoded where nobody gives one.

    Attributes:
        side_px: Side of the images.
        note: A sentence that says how it was chosen; empty where all files have one size.
    """

    side_px: int
    note: str


def common_size(paths: Sequence[Path], where: str) -> CommonSize:
    """Chooses the size of the images from those of the files: one size is taken; of several, the median of the longer sides.

    A few overview photographs among cells do not move the median.

    Args:
        paths: at least one file; only headers are read.
        where: what lists them, for the message.

    Raises:
        DataError: no file has a readable header.
    """

    def size_of(path: Path) -> tuple[int, int] | None:
        try:
            header = read_header(_read_bytes(path))
        except (OSError, HeaderError):
            return None
        return (header.width, header.height) if header.width * header.height <= MAX_PIXELS else None

    with ThreadPoolExecutor(available_cores()) as pool:
        sizes = [size for size in pool.map(size_of, paths) if size is not None]
    if not sizes:
        raise DataError(
            f"{where}: expected images, none of {len(paths)} files can be read as one. First: {paths[0]}. Are they of another "
            "format, or cut short?"
        )
    sides = sorted(max(size) for size in sizes)
    side = sides[(len(sides) - 1) // 2]
    different = len(set(sizes))
    if different == 1:
        return CommonSize(side, "")
    smallest, largest = min(sizes, key=max), max(sizes, key=max)
    return CommonSize(
        side,
        f"the files have {different} sizes, {smallest[0]} x {smallest[1]} to {largest[0]} x {largest[1]} px: all are resized "
        f"to {side} px, the median; --image-size-px takes another size",
    )


def check_memory(count: int, side_px: int, where: str) -> None:
    """Checks that images fit into memory.

    Args:
        count: how many.
        side_px: their side.
        where: what they are read from, for the message.

    Raises:
        DataError: they do not; the message says which size would fit.
    """
    needed, available = count * side_px * side_px * 3, available_memory_bytes()
    if needed > _MEMORY_FRACTION * available:
        fits_px = int((_MEMORY_FRACTION * available / 3 / count) ** 0.5)
        hint = f"Give --image-size-px {fits_px} or less, or" if fits_px >= _MIN_SENSIBLE_PX else "Take fewer images, or"
        raise DataError(
            f"{where}: expected images that fit into memory, got {count:,} of {side_px} x {side_px} px, which take "
            f"{needed / 2**30:.1f} GiB; {available / 2**30:.1f} GiB are free. {hint} use a machine with more memory."
        )


def decode_files(paths: Sequence[Path], names: Sequence[str], side_px: int) -> DecodedFiles:
    """Decodes files on all cores into one array; unreadable ones are excluded with a note.

    OpenCV decodes and resizes without holding Python's lock, so threads are enough.

    Args:
        paths: the files.
        names: one for each file, for the notes.
        side_px: side of the images; see ``to_square``.

    Raises:
        DataError: the images do not fit into memory.
    """
    check_memory(len(paths), side_px, str(paths[0].parent))
    images = np.empty((len(paths), side_px, side_px, 3), np.uint8)

    def decode_into(index: int) -> tuple[bool, tuple[FileProblem, ...]]:
        try:
            decoded = decode_image(_read_bytes(paths[index]), names[index], side_px)
        except OSError as error:
            reason = str(error) if error.strerror is None else error.strerror
            return False, (FileProblem(names[index], "unreadable", "excluded", reason),)
        except MemoryError:
            return False, (FileProblem(names[index], "too_large", "excluded", "not enough memory to decode it"),)
        if decoded.image is not None:
            images[index] = decoded.image
        return decoded.image is not None, decoded.problems

    # OpenCV prints a warning for each damaged file; the notes say the same once.
    previous_level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        with ThreadPoolExecutor(available_cores()) as pool:
            outcomes = list(pool.map(decode_into, range(len(paths))))
    finally:
        cv2.utils.logging.setLogLevel(previous_level)
    kept = np.flatnonzero([is_read for is_read, _ in outcomes])
    problems = tuple(problem for _, problems in outcomes for problem in problems)
    return DecodedFiles(images if len(kept) == len(paths) else images[kept], kept, problems)
