"""Image files and folders of them, made for tests."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np


def picture(seed: int, height: int = 24, width: int = 24) -> np.ndarray:
    """A smooth random RGB picture, uint8."""
    coarse = np.random.default_rng(seed).integers(40, 216, (4, 4, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)


def encoded(image: np.ndarray, suffix: str, *parameters: int) -> bytes:
    bgr = image if image.ndim == 2 else image[:, :, [2, 1, 0, 3][: image.shape[2]]]
    is_written, data = cv2.imencode(suffix, np.ascontiguousarray(bgr), list(parameters))
    assert is_written
    return data.tobytes()


def with_exif(jpeg: bytes, orientation: int) -> bytes:
    tiff = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 274, 3, 1, orientation, 0, 0)
    body = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def png(width: int, height: int, colour_type: int, depth: int, rows: bytes, *extra: tuple[bytes, bytes]) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*pair) for pair in chunks)


def write_class_folders(root: Path, classes: tuple[str, ...] = ("blast", "ring"), each: int = 3) -> None:
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for number in range(each):
            image = picture(10 * label + number)
            (root / name / f"{number}.png").write_bytes(encoded(image, ".png"))


def save(path: Path, **arrays: Any) -> Path:
    np.savez_compressed(path, **arrays)
    return path
