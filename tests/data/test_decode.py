"""One image file -> one square RGB image; broken and odd ones."""

from __future__ import annotations

import base64
import struct

import cv2
import numpy as np
import pytest

from bloodauto.data.decode import decode_image, to_square
from tests.data.image_files import encoded, picture, png, with_exif

# 16 x 16 px CMYK JPEG, left half pure cyan, right half pure yellow; OpenCV can not write one.
CMYK_JPEG = base64.b85decode(
    "|JeWT01iQ9Z(?NtWB>pF0095n07C!+0s;d90s{jB0|WyD1O*5M1q1{I3I_)U2n-4g3=0Yi3k?nu5Dg9y4hstq77!5=6crT}3=bC=78Do~6crTz"
    "zyK5o01yBW1Va%3O%VWD5dcdO0RO}Q761VO0RR9100000000000000A3ID_Z6c7Ob00000000000000000030+5ip&LjX+xSpZ7_06zfArm3|}"
    "s%oebt|eSmK&pW%<Nw("
)


def test_square_padding_keeps_the_shape_of_a_cell() -> None:
    image = np.full((40, 80, 3), 230, np.uint8)
    cv2.circle(image, (40, 20), 15, (90, 40, 120), -1)
    square = to_square(image, 40)
    assert square.shape == (40, 40, 3)
    rows, columns = np.nonzero(square[:, :, 0] < 160)
    assert np.ptp(rows) == np.ptp(columns)
    assert abs(rows.mean() - 19.5) <= 0.5
    assert abs(columns.mean() - 19.5) <= 0.5
    assert (square[0] == 230).all()


def test_truncated_jpeg_is_excluded_at_every_length_although_opencv_would_decode_it() -> None:
    grain = np.random.default_rng(1).integers(0, 256, (96, 96, 3), np.uint8)
    jpeg = encoded(grain, ".jpg", cv2.IMWRITE_JPEG_QUALITY, 95)
    progressive = encoded(grain, ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    zero_tail = jpeg[: len(jpeg) // 2] + bytes(len(jpeg) // 2)
    assert cv2.imdecode(np.frombuffer(zero_tail, np.uint8), cv2.IMREAD_COLOR) is not None
    for complete in (jpeg, progressive):
        assert decode_image(complete, "a", 96).image is not None
        assert decode_image(complete + b"\0" * 7, "padding after the end is harmless", 96).image is not None
        for length in (*range(2, len(complete) - 2, 137), len(complete) - 2, len(complete) - 1):
            decoded = decode_image(complete[:length], "a", 96)
            assert decoded.image is None, length
            assert decoded.problems[0].finding in ("truncated", "unreadable")
    assert decode_image(zero_tail, "a", 96).problems[0].finding == "truncated"


def test_end_marker_of_an_embedded_thumbnail_does_not_hide_a_truncation() -> None:
    jpeg = encoded(picture(1, 96, 96), ".jpg")
    thumbnail = encoded(picture(1, 8, 8), ".jpg")
    body = b"Exif\0\0" + thumbnail
    complete = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]
    assert decode_image(complete, "a", 96).image is not None
    assert decode_image(complete[: len(complete) * 2 // 3], "a", 96).problems[0].finding == "truncated"


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_other_truncated_files_are_excluded(suffix: str) -> None:
    complete = encoded(picture(2, 64, 64), suffix)
    for length in range(0, len(complete) - 40, max(1, len(complete) // 23)):
        assert decode_image(complete[:length], "a", 64).image is None, length


def test_flipped_byte_in_a_png_is_detected_by_its_checksum() -> None:
    data = bytearray(encoded(picture(2, 64, 64), ".png"))
    data[len(data) // 2] ^= 0xFF
    assert decode_image(bytes(data), "a", 64).problems[0].finding == "truncated"


def test_random_bytes_never_crash() -> None:
    rng = np.random.default_rng(3)
    for begin in (b"", b"\xff\xd8", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*", b"BM"):
        for _ in range(60):
            decoded = decode_image(begin + rng.bytes(int(rng.integers(0, 200))), "a", 8)
            assert decoded.image is None
            assert decoded.problems[0].action == "excluded"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_agrees_with_opencv_and_is_noted(orientation: int) -> None:
    jpeg = with_exif(encoded(picture(4, 32, 32), ".jpg", cv2.IMWRITE_JPEG_QUALITY, 100), orientation)
    decoded = decode_image(jpeg, "a", 32)
    expected = np.asarray(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR))[:, :, ::-1]
    np.testing.assert_array_equal(decoded.image, expected)
    assert [problem.finding for problem in decoded.problems] == ([] if orientation == 1 else ["exif_rotation"])


def _rgba(alpha: int) -> np.ndarray:
    return np.dstack([picture(5), np.full((24, 24), alpha, np.uint8)])


@pytest.mark.parametrize(
    ("data", "finding", "expected"),
    [
        (encoded(picture(5)[:, :, 0], ".png"), "grey", np.repeat(picture(5)[:, :, :1], 3, axis=2)),
        (encoded(_rgba(255), ".png"), "alpha_channel", picture(5)),
        (encoded(_rgba(0), ".png"), "transparent", np.full((24, 24, 3), 255, np.uint8)),
        (encoded(picture(5).astype(np.uint16) * 257, ".tif"), "sixteen_bit", picture(5)),
        (encoded(picture(5).astype(np.uint16) * 257, ".png"), "sixteen_bit", picture(5)),
    ],
)
def test_odd_modes_are_converted_and_noted(data: bytes, finding: str, expected: np.ndarray) -> None:
    decoded = decode_image(data, "a", 24)
    np.testing.assert_array_equal(decoded.image, expected)
    assert [(problem.finding, problem.action) for problem in decoded.problems] == [(finding, "converted")]


def test_palette_png() -> None:
    colours = bytes([200, 30, 40, 10, 220, 30])
    rows = b"".join(b"\0" + bytes([0, 1, 0, 1]) for _ in range(4))
    decoded = decode_image(png(4, 4, 3, 8, rows, (b"PLTE", colours)), "a", 4)
    assert decoded.image is not None
    assert decoded.image[0, 0].tolist() == [200, 30, 40]
    assert decoded.image[3, 1].tolist() == [10, 220, 30]
    assert [problem.finding for problem in decoded.problems] == ["palette"]


def test_cmyk_jpeg() -> None:
    decoded = decode_image(CMYK_JPEG, "a", 16)
    assert decoded.image is not None
    assert np.abs(decoded.image[2, 2].astype(int) - [0, 255, 255]).max() <= 4
    assert np.abs(decoded.image[2, 13].astype(int) - [255, 255, 0]).max() <= 4
    assert [problem.finding for problem in decoded.problems] == ["cmyk"]


def test_twelve_bits_in_sixteen_and_floats_are_excluded_not_turned_black() -> None:
    assert (
        decode_image(encoded(picture(5).astype(np.uint16) * 16, ".tif"), "a", 24).problems[0].finding == "narrow_range"
    )
    floats = encoded(picture(5).astype(np.float32) / 255, ".tif")
    assert decode_image(floats, "a", 24).problems[0].finding == "unsupported_depth"


def test_image_bomb_is_refused_by_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = png(50_000, 50_000, 2, 8, b"")
    assert decode_image(bomb, "a", 24).problems[0].finding == "too_large"
