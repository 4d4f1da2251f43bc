"""What every corruption family promises: uint8 in and out, five severities that grow, the same bytes from the same seed."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable

import numpy as np

from bloodauto.shift.corruptions import SEVERITIES, CorruptionFamily
from bloodauto.testing.conformance import sample_cells
from bloodauto.types import Images

_SHAPES = ((1, 1), (1, 7), (33, 2), (28, 28), (60, 97), (224, 224))
_CITATION = re.compile(r"arXiv:\d{4}\.\d{4,5}|doi:10\.|PMID|Ruifrok and Johnston 2001")


def mean_change(family: CorruptionFamily, images: Images, severity: int) -> float:
    """The mean absolute difference in levels that a family makes, over images."""
    changed = [family.apply(image, severity, np.random.default_rng(i)) for i, image in enumerate(images)]
    return float(np.abs(np.stack(changed).astype(int) - images).mean())


def check_declaration(family: CorruptionFamily) -> None:
    """Levels are strictly graded, severities and levels convert into each other, and the source can be cited."""
    assert len(family.levels) == len(SEVERITIES), f"{family.name}: expected a level for each of {SEVERITIES}"
    signs = set(np.sign(np.diff(family.levels)).tolist())
    assert signs in ({1.0}, {-1.0}), f"{family.name}: expected strictly graded levels, got {family.levels}"
    for severity in (*SEVERITIES, 2.5):
        assert abs(family.severity_at(family.level_at(severity)) - severity) < 1e-9
    assert family.unit, f"{family.name}: expected a unit"
    assert _CITATION.search(family.source), f"{family.name}: expected an arXiv number or a DOI, got {family.source!r}"


def check_images_in_and_out(family: CorruptionFamily) -> None:
    """Images of any shape give new uint8 images of the same shape, and are not written."""
    for height, width in _SHAPES:
        image = np.random.default_rng(5).integers(0, 256, (height, width, 3), dtype=np.uint8)
        original = image.copy()
        image.setflags(write=False)
        for severity in SEVERITIES:
            changed = family.apply(image, severity, np.random.default_rng(1))
            assert changed.dtype == np.uint8, f"{family.name}: expected uint8, got {changed.dtype}"
            assert changed.shape == image.shape, f"{family.name}: expected {image.shape}, got {changed.shape}"
            assert not np.shares_memory(changed, image), f"{family.name}: expected a new array"
        np.testing.assert_array_equal(image, original, err_msg=f"{family.name}: the input was changed")


def check_constant_images(family: CorruptionFamily) -> None:
    """Images of one grey give images, and stay as they are under families of optics and geometry."""
    for grey in (0, 1, 128, 255):
        image = np.full((32, 40, 3), grey, np.uint8)
        changed = family.apply(image, 3, np.random.default_rng(0))
        assert changed.shape == image.shape
        if family.group in ("optics", "geometry"):
            np.testing.assert_array_equal(changed, image, err_msg=family.name)


def check_memory_layout(family: CorruptionFamily) -> None:
    """A window of a larger array gives the same image as a copy of it."""
    frame = np.random.default_rng(2).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    window = frame[5:45:2, 50:3:-3]
    np.testing.assert_array_equal(
        family.apply(window, 3, np.random.default_rng(4)),
        family.apply(np.ascontiguousarray(window), 3, np.random.default_rng(4)),
    )


def check_same_seed(family: CorruptionFamily) -> None:
    """The same generator state gives the same bytes."""
    for severity, image in enumerate(sample_cells(5, 48), start=1):
        first, second = (family.apply(image, severity, np.random.default_rng(7)) for _ in range(2))
        np.testing.assert_array_equal(first, second, err_msg=family.name)


def check_severity_grows(family: CorruptionFamily) -> None:
    """The mean change grows with the severity, and the mildest severity changes every image."""
    images = sample_cells(24)
    changes = [mean_change(family, images, severity) for severity in SEVERITIES]
    assert changes[0] > 0.5, f"{family.name}: expected more than half a level at severity 1, got {changes[0]}"
    assert all(later > earlier for earlier, later in itertools.pairwise(changes)), f"{family.name}: got {changes}"
    for i, image in enumerate(images):
        assert not np.array_equal(family.apply(image, 1, np.random.default_rng(i)), image), f"{family.name}: image {i}"


def check_randomness(family: CorruptionFamily, *, draws_nothing: bool = False) -> None:
    """Different generators give different images, unless the family draws nothing.

    Args:
        family: What is checked.
        draws_nothing: Whether the level alone decides the result.
    """
    image = sample_cells(1)[0]
    results = {family.apply(image, 3, np.random.default_rng(seed)).tobytes() for seed in range(12)}
    assert (len(results) == 1) == draws_nothing, f"{family.name}: got {len(results)} different images from 12 seeds"


#: All checks that take a family alone.
CORRUPTION_CHECKS: tuple[Callable[[CorruptionFamily], None], ...] = (
    check_declaration,
    check_images_in_and_out,
    check_constant_images,
    check_memory_layout,
    check_same_seed,
    check_severity_grows,
    check_randomness,
)
