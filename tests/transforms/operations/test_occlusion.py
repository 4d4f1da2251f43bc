"""Painted parts have the declared size and colour."""

from __future__ import annotations

import numpy as np
import pytest

from bloodauto.types import Image
from tests.transforms.applying import apply_operation


def test_cutout_and_grid_mask_paint_the_declared_fraction(smooth_image: Image) -> None:
    square = smooth_image[:60, :60]
    changed = (apply_operation("cutout", 0.5, square) != square).any(axis=2)
    assert changed.mean() == pytest.approx(0.25, abs=0.02)
    ys, xs = np.nonzero(changed)
    assert (ys.min(), ys.max(), xs.min(), xs.max()) == pytest.approx((15, 44, 15, 44), abs=1)
    painted = apply_operation("cutout", 0.5, square)[30, 30]
    np.testing.assert_allclose(painted.astype(float), square.mean(axis=(0, 1)), atol=1)
    assert (apply_operation("grid_mask", 0.6, square) != square).any(axis=2).mean() == pytest.approx(0.36, abs=0.08)
