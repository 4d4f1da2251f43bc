"""Laws that every corruption family obeys, and what single families promise."""

from __future__ import annotations

import re
from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bloodauto.errors import DataError, RecipeError
from bloodauto.shift.corruptions import light, optics, stain
from bloodauto.shift.corruptions.family import GROUPS, SEVERITIES, CorruptionFamily
from bloodauto.shift.corruptions.registry import FAMILIES, find_family
from tests.locations import SHARED

REAL_CELLS = SHARED / "data" / "pbc96"

each_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


def mean_change(family: CorruptionFamily, images: np.ndarray, severity: int) -> float:
    """Mean absolute difference in grey levels over the images."""
    changed = [family.apply(image, severity, np.random.default_rng(i)) for i, image in enumerate(images)]
    return float(np.abs(np.stack(changed).astype(int) - images).mean())


def test_every_group_has_families_and_every_family_a_citable_source() -> None:
    assert {family.group for family in FAMILIES} == set(GROUPS)
    for family in FAMILIES:
        assert re.search(r"arXiv:\d{4}\.\d{4,5}|doi:10\.|Johnston 2001", family.source), family.name


@each_family
def test_levels_are_strictly_graded(family: CorruptionFamily) -> None:
    steps = np.sign(np.diff(family.levels))
    assert len(family.levels) == len(SEVERITIES)
    assert set(steps) in ({1.0}, {-1.0})


@each_family
@pytest.mark.parametrize(
    "shape",
    [(1, 1, 3), (1, 7, 3), (33, 2, 3), (28, 28, 3), (60, 97, 3), (224, 224, 3)],
    ids=lambda shape: str(shape[:2]),
)
def test_shape_type_and_input_survive(family: CorruptionFamily, shape: tuple[int, int, int]) -> None:
    image = np.random.default_rng(5).integers(0, 256, shape, dtype=np.uint8)
    before = image.copy()
    for severity in SEVERITIES:
        changed = family.apply(image, severity, np.random.default_rng(1))
        assert changed.dtype == np.uint8
        assert changed.shape == shape
        assert not np.shares_memory(changed, image)
    np.testing.assert_array_equal(image, before)


@each_family
@pytest.mark.parametrize("grey", [0, 1, 128, 255])
def test_constant_images_are_no_trap(family: CorruptionFamily, grey: int) -> None:
    image = np.full((32, 40, 3), grey, np.uint8)
    changed = family.apply(image, 3, np.random.default_rng(0))
    assert changed.shape == image.shape
    if family.group in ("optics", "geometry"):
        np.testing.assert_array_equal(changed, image)


@given(
    image=arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3))),
    family=st.sampled_from(FAMILIES),
    severity=st.sampled_from(SEVERITIES),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=150)
def test_any_image_gives_an_image_and_the_same_twice(
    image: np.ndarray, family: CorruptionFamily, severity: int, seed: int
) -> None:
    first = family.apply(image, severity, np.random.default_rng(seed))
    assert first.dtype == np.uint8
    assert first.shape == image.shape
    np.testing.assert_array_equal(first, family.apply(image, severity, np.random.default_rng(seed)))


@each_family
def test_a_view_of_a_larger_array_gives_the_same_as_a_copy(family: CorruptionFamily) -> None:
    whole = np.random.default_rng(2).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    window = whole[5:45:2, 50:3:-3]
    np.testing.assert_array_equal(
        family.apply(window, 3, np.random.default_rng(4)),
        family.apply(np.ascontiguousarray(window), 3, np.random.default_rng(4)),
    )


@each_family
def test_severity_grows_and_every_image_changes(family: CorruptionFamily, cells: np.ndarray) -> None:
    changes = [mean_change(family, cells, severity) for severity in SEVERITIES]
    assert changes[0] > 0.5
    assert all(later > earlier for earlier, later in pairwise(changes)), changes
    for i, image in enumerate(cells):
        assert not np.array_equal(family.apply(image, 1, np.random.default_rng(i)), image)


@pytest.mark.real_data
@each_family
def test_severity_grows_on_real_cells(family: CorruptionFamily) -> None:
    if not REAL_CELLS.is_dir():
        pytest.skip(f"no real cells at {REAL_CELLS}")
    paths = [path for folder in sorted(REAL_CELLS.iterdir()) for path in sorted(folder.iterdir())[:5]]
    images = np.stack([cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in paths])
    changes = [mean_change(family, images, severity) for severity in SEVERITIES]
    assert all(later > earlier for earlier, later in pairwise(changes)), changes


@each_family
def test_random_families_depend_on_the_generator(family: CorruptionFamily, cells: np.ndarray) -> None:
    results = {family.apply(cells[0], 3, np.random.default_rng(seed)).tobytes() for seed in range(12)}
    draws_nothing = {"defocus", "jpeg", "pixelation", "resolution"}
    assert (len(results) == 1) == (family.name in draws_nothing)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ],
    ids=["float", "grey", "four channels", "empty"],
)
def test_what_is_no_image_is_refused(image: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"expected a non-empty uint8 image"):
        FAMILIES[0].apply(image, 1, np.random.default_rng(0))


@pytest.mark.parametrize("severity", [0, 6, -1])
def test_unknown_severity_is_refused(severity: int) -> None:
    with pytest.raises(RecipeError, match="severity"):
        FAMILIES[0].apply(np.zeros((4, 4, 3), np.uint8), severity, np.random.default_rng(0))


def test_a_misspelt_name_meets_the_nearest() -> None:
    assert find_family("jpeg").name == "jpeg"
    with pytest.raises(RecipeError, match="'stain_hue'"):
        find_family("stain_heu")


def test_blur_kernels_pass_light_and_have_the_stated_width() -> None:
    for radius_px in (0.3, 1.0, 4.2):
        assert optics.disc_kernel(radius_px).sum() == pytest.approx(1, abs=1e-6)
    long_line = optics.line_kernel(9.0, 0.0)
    assert long_line.sum() == pytest.approx(1, abs=1e-6)
    assert np.count_nonzero(long_line.sum(axis=0)) == 9
    assert np.count_nonzero(long_line.sum(axis=1)) == 1


def test_colour_temperature_keeps_grey_luma_and_warms_by_mired() -> None:
    warm, cold = light.channel_gains(60), light.channel_gains(-60)
    assert light.LUMA @ warm == pytest.approx(1)
    assert warm[0] > warm[1] > warm[2]
    assert cold[0] < cold[1] < cold[2]
    np.testing.assert_allclose(light.channel_gains(0), 1)


def test_another_camera_keeps_the_order_of_greys_lifts_black_and_lowers_white_by_its_stops() -> None:
    camera = find_family("camera")
    image = np.full((64, 64, 3), 255, np.uint8)
    image[0] = np.arange(0, 256, 4)[:, None]
    for seed in range(20):
        changed = camera.apply(image, 5, np.random.default_rng(seed)).astype(int)
        assert (np.diff(changed[0], axis=0) >= 0).all()
        # The response's exponent at its steepest, times the stops, in grey levels as they are encoded.
        steepest = 2.0 ** (camera.levels[4] / 2) / light.ENCODING_GAMMA
        assert (changed[1, 1] >= 255 * 2.0 ** (-camera.levels[4] * steepest) - 1).all()
    lifted = [camera.apply(image, 5, np.random.default_rng(seed))[0, 0].min() for seed in range(20)]
    assert max(lifted) > 50


def test_a_camera_sees_one_colour_as_one_colour() -> None:
    image = np.full((32, 32, 3), (200, 180, 160), np.uint8)
    changed = find_family("camera").apply(image, 5, np.random.default_rng(0))
    assert len(np.unique(changed.reshape(-1, 3), axis=0)) == 1


def test_dye_factors_multiply_the_dye_and_nothing_else() -> None:
    amounts = np.array([0.7, 0.4, 0.1])
    changed = amounts @ stain.GIEMSA_BASIS @ stain.dye_matrix((2.0, 0.5)) @ np.linalg.inv(stain.GIEMSA_BASIS)
    np.testing.assert_allclose(changed, [1.4, 0.2, 0.1], atol=1e-12)


def test_hue_rotation_keeps_mean_density_and_inverts() -> None:
    densities = np.random.default_rng(0).random((10, 3))
    turned = densities @ stain.hue_matrix(25)
    np.testing.assert_allclose(turned.mean(axis=1), densities.mean(axis=1))
    np.testing.assert_allclose(turned @ stain.hue_matrix(-25), densities)


def test_unchanged_stain_gives_the_image_back(cells: np.ndarray) -> None:
    difference = stain.change_stain(cells[0], np.eye(3)).astype(int) - cells[0]
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("name", ["blue_stain_intensity", "eosin_intensity", "staining_time", "stain_hue"])
def test_stain_families_leave_the_empty_slide_alone(name: str) -> None:
    image = np.full((40, 40, 3), (246, 226, 206), np.uint8)
    image[10:25, 10:25] = (85, 40, 130)
    changed = find_family(name).apply(image, 5, np.random.default_rng(0)).astype(int)
    assert np.abs(changed[0, 0] - image[0, 0]).max() <= 1
    assert np.abs(changed[15, 15] - image[15, 15]).max() > 10


def test_sensor_noise_has_the_stated_deviation() -> None:
    image = np.full((200, 200, 3), 128, np.uint8)
    for severity in (1, 3):
        gaussian, shot = find_family("gaussian_noise"), find_family("shot_noise")
        noisy = gaussian.apply(image, severity, np.random.default_rng(0))
        assert noisy.std() == pytest.approx(gaussian.levels[severity - 1], rel=0.03)
        photons = shot.levels[severity - 1] * 128 / 255
        noisy = shot.apply(image, severity, np.random.default_rng(0))
        assert noisy.std() / 128 == pytest.approx(1 / np.sqrt(photons), rel=0.03)


def test_occlusion_covers_the_stated_area() -> None:
    family = find_family("occlusion")
    image = np.full((400, 400, 3), 255, np.uint8)
    shares = [(family.apply(image, 1, np.random.default_rng(seed)) < 128).all(axis=2).mean() for seed in range(30)]
    # The largest lies wholly inside the frame; OpenCV fills the outline's half pixel too.
    assert max(shares) == pytest.approx(family.levels[0] / 100, rel=0.05)
