"""Pictures of a data set are small, few, and show what cleaning found."""

from __future__ import annotations

import base64
from pathlib import Path

import cv2
import numpy as np
import pytest

from bloodauto.data.clean import clean
from bloodauto.data.pictures import PICTURE_BYTES, data_pictures, jpeg_of
from bloodauto.data.synthetic.generator import PlantedFaults, synthesize
from bloodauto.errors import RunError
from bloodauto.run.artifacts import DataPictures


def decoded(jpeg: str) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(base64.b64decode(jpeg), np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image[..., ::-1]


def test_a_picture_is_small_in_pixels_and_bytes_and_has_its_colours() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 200, 3), dtype=np.uint8)
    jpeg = jpeg_of(noise)
    assert len(base64.b64decode(jpeg)) <= PICTURE_BYTES, "noise is the worst that there is"
    assert decoded(jpeg).shape == (96, 64, 3)
    red = np.full((20, 20, 3), (250, 10, 10), np.uint8)
    assert np.abs(decoded(jpeg_of(red)).astype(int) - red).max() < 12


def test_classes_and_findings_are_pictured() -> None:
    dataset = synthesize(120, image_size_px=24, faults=PlantedFaults(duplicate_fraction=0.1))
    cleaning = clean(dataset)
    pictures = data_pictures(dataset, cleaning)
    assert tuple(pictures.classes) == dataset.class_names
    kept = set(dataset.names[cleaning.keep].tolist())
    for shown in pictures.classes.values():
        assert 0 < len(shown) <= 12
        assert {picture.name for picture in shown} <= kept, "excluded images stand for no class"
    excluded = {entry.picture.name for entry in pictures.cleaned if entry.action == "excluded"}
    assert len(excluded) == 12
    assert excluded == set(dataset.names[~cleaning.keep].tolist())
    assert all(entry.finding == "exact_duplicate" and entry.reason for entry in pictures.cleaned)


@pytest.mark.parametrize("content", ["bm8gSlBFRw==", 'x" onerror="alert(1)', "/9j/!"])
def test_a_file_with_anything_but_jpegs_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / DataPictures.FILE
    dataset = synthesize(8, image_size_px=16)
    data_pictures(dataset, clean(dataset)).write(path)
    written = DataPictures.read(path)
    first = next(picture.jpeg for shown in written.classes.values() for picture in shown)
    path.write_text(path.read_text().replace(first, content.replace('"', '\\"')))
    with pytest.raises(RunError, match="a JPEG file in base64"):
        DataPictures.read(path)
