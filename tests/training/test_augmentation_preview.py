"""Contact sheets of an augmentation."""

from __future__ import annotations

import numpy as np
import pytest

from bloodauto.config.recipe import OperationStep, RandAugmentSettings
from bloodauto.errors import DataError
from bloodauto.training.augmentation_preview import augmentation_contact_sheet
from bloodauto.transforms import ApplyOperation, RandAugment

RAND_AUGMENT = RandAugment(RandAugmentSettings(num_ops=3, magnitude=0.5))


def test_a_contact_sheet_shows_the_images_and_their_versions() -> None:
    images = np.random.default_rng(0).integers(0, 200, (3, 20, 30, 3), dtype=np.uint8)
    picture = augmentation_contact_sheet(
        images, ApplyOperation(OperationStep(operation="invert")), seed=0, columns=4, tile_size_px=30
    )
    assert picture.shape == (3 * 22 + 2, 4 * 32 + 6, 3)
    np.testing.assert_array_equal(picture[2:22, 2:32], images[0])
    np.testing.assert_array_equal(picture[24:44, 38:68], 255 - images[1])
    assert (picture[0] == 255).all()


def test_a_contact_sheet_follows_its_seed() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    first, repeated, other = (augmentation_contact_sheet(images, RAND_AUGMENT, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, repeated)
    assert (first != other).any()


@pytest.mark.parametrize(("options", "message"), [({"columns": 1}, "2 columns"), ({"tile_size_px": 0}, "1 px")])
def test_impossible_sheets_are_refused(options: dict[str, int], message: str) -> None:
    images = np.zeros((2, 16, 16, 3), np.uint8)
    with pytest.raises(DataError, match=message):
        augmentation_contact_sheet(images, RAND_AUGMENT, seed=0, **options)
