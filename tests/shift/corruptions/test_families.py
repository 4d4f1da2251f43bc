"""What single families promise, against plain reference computations."""

from __future__ import annotations

import numpy as np
import pytest

from bloodauto.shift.corruptions import find_family, light, optics, stain
from bloodauto.transforms.physics import ENCODING_GAMMA
from bloodauto.types import Images


def test_blur_kernels_pass_light_and_have_the_stated_width() -> None:
    for radius_px in (0.3, 1.0, 4.2):
        assert optics.defocus_kernel(radius_px).sum() == pytest.approx(1, abs=1e-6)
    long_line = optics.motion_kernel(9.0, 0.0)
    assert long_line.sum() == pytest.approx(1, abs=1e-6)
    assert np.count_nonzero(long_line.sum(axis=0)) == 9
    assert np.count_nonzero(long_line.sum(axis=1)) == 1


def test_colour_temperature_keeps_grey_luma_and_warms_by_mired() -> None:
    warm, cold = light.channel_gains(60), light.channel_gains(-60)
    assert light.LUMA @ warm == pytest.approx(1)
    assert warm[0] > warm[1] > warm[2]
    assert cold[0] < cold[1] < cold[2]
    np.testing.assert_allclose(light.channel_gains(0), 1)


def test_a_camera_keeps_the_order_of_greys_lifts_black_and_lowers_white_by_its_stops() -> None:
    camera = find_family("camera")
    image = np.full((64, 64, 3), 255, np.uint8)
    image[0] = np.arange(0, 256, 4)[:, None]
    for seed in range(20):
        changed = camera.apply(image, 5, np.random.default_rng(seed)).astype(int)
        assert (np.diff(changed[0], axis=0) >= 0).all()
        # The largest exponent of the response, times the stops, in levels as they are encoded.
        steepest = 2.0 ** (camera.levels[4] / 2) / ENCODING_GAMMA
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


def test_unchanged_stain_gives_the_image_back(cells: Images) -> None:
    difference = stain.change_stain(cells[0], np.eye(3)).astype(int) - cells[0]
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("name", ["blue_stain_intensity", "eosin_intensity", "staining_time", "stain_hue"])
def test_stain_families_keep_the_colour_of_the_empty_slide(name: str) -> None:
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
    fractions = [(family.apply(image, 1, np.random.default_rng(seed)) < 128).all(axis=2).mean() for seed in range(30)]
    # The largest is inside the frame; OpenCV fills half a pixel of the outline as well.
    assert max(fractions) == pytest.approx(family.levels[0] / 100, rel=0.05)
