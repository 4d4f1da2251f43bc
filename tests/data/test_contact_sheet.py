"""Contact sheets."""

from __future__ import annotations

import numpy as np
import pytest

from bloodauto.data.contact_sheet import contact_sheet
from bloodauto.errors import DataError


def _plain(n: int, height: int = 20, width: int = 30) -> np.ndarray:
    """Images of one grey level each: 10, 20, 30, ..."""
    return np.full((n, height, width, 3), 10 * np.arange(1, n + 1, dtype=np.uint8)[:, None, None, None])


def test_every_image_appears_whole_and_in_order() -> None:
    canvas = contact_sheet(_plain(5), None, columns=2)
    for level in (10, 20, 30, 40, 50):
        rows, columns = np.nonzero((canvas == level).all(2))
        assert len(rows) == 20 * 30
        tile = (level // 10 - 1) // 2, (level // 10 - 1) % 2
        assert (rows.min() // 22, columns.min() // 32) == tile
    assert (canvas[-10, -10] == 255).all(), "the last tile is empty and white"


def test_captions_are_written_below_and_never_over_an_image() -> None:
    images = _plain(2)
    canvas = contact_sheet(images, ["a", "a caption that is much too long for thirty pixels"], columns=2)
    for level in (10, 20):
        assert (canvas == level).all(2).sum() >= 20 * 30
    below = canvas[22:36]
    assert (below[:, 2:32] < 128).any()
    assert (below[:, 34:64] < 200).any()


def test_columns_shrink_to_the_number_of_images() -> None:
    assert contact_sheet(_plain(2), None, columns=8).shape[1] < 3 * 32


@pytest.mark.parametrize(
    ("images", "captions", "columns", "message"),
    [
        (np.zeros((0, 8, 8, 3), np.uint8), None, 4, "at least one image"),
        (np.zeros((2, 8, 8), np.uint8), None, 4, r"uint8 \(2, 8, 8\)"),
        (np.zeros((2, 8, 8, 3), np.float32), None, 4, "float32"),
        (np.zeros((2, 8, 8, 3), np.uint8), ["first"], 4, "one caption per image"),
        (np.zeros((2, 8, 8, 3), np.uint8), None, 0, "column"),
    ],
)
def test_bad_arguments(images: np.ndarray, captions: list[str] | None, columns: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        contact_sheet(images, captions, columns=columns)


def test_tiles_are_resized_to_their_longer_side_and_the_first_column_stands_apart() -> None:
    canvas = contact_sheet(_plain(4), columns=2, tile_size_px=60, separate_first_column=True)
    assert canvas.shape == (2 * 42 + 2, 2 * 62 + 2 + 4, 3)
    assert (canvas[2:42, 2:62] == 10).all()
    assert (canvas[2:42, 62:68] == 255).all()
    assert (canvas[2:42, 68:128] == 20).all()
