"""Stain, light, optics and sensor: each does what its name says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bloodauto.data.synthetic.film import CHROMATIN, HAEMOGLOBIN
from bloodauto.data.synthetic.generator import synthesize
from bloodauto.data.synthetic.morphology import draw_cell
from bloodauto.data.synthetic.site import SYNTHETIC_SITES, Optics, Sensor, SyntheticSite, lamp_colour, render_image
from bloodauto.errors import DataError

PERFECT = replace(
    SYNTHETIC_SITES["lab_a"],
    stain=replace(SYNTHETIC_SITES["lab_a"].stain, intensity_spread=0.0, hue_spread=0.0),
    illumination=replace(
        SYNTHETIC_SITES["lab_a"].illumination, colour_temperature_spread=0.0, brightness_spread=0.0, vignette=0.0
    ),
    optics=Optics(blur_um=0.0),
    sensor=Sensor(noise_grey_levels=0.0, jpeg_quality=None),
)


def _photograph(site: SyntheticSite, amounts: np.ndarray) -> np.ndarray:
    return render_image(np.random.default_rng(0), amounts, site)


def _flat(absorber: int, amount: float) -> np.ndarray:
    amounts = np.zeros((4, 24, 24), np.float32)
    amounts[absorber] = amount
    return amounts


@pytest.mark.parametrize("absorber", [CHROMATIN, HAEMOGLOBIN])
def test_absorption_follows_beer_and_lambert(absorber: int) -> None:
    empty = 255 * lamp_colour(PERFECT.illumination.colour_temperature_kelvin)
    assert (_photograph(PERFECT, _flat(absorber, 0.0))[12, 12] == np.rint(empty)).all()
    once, twice = (_photograph(PERFECT, _flat(absorber, amount))[12, 12] for amount in (0.6, 1.2))
    density = np.array([PERFECT.stain.chromatin, PERFECT.stain.haemoglobin][absorber == HAEMOGLOBIN])
    np.testing.assert_allclose(once, empty * np.exp(-0.6 * density), atol=0.51)
    np.testing.assert_allclose(twice, empty * np.exp(-1.2 * density), atol=0.51)


def test_lamp_is_neutral_at_6500_kelvin_and_yellower_below() -> None:
    np.testing.assert_allclose(lamp_colour(6500.0), 1.0)
    red, green, blue = lamp_colour(3200.0)
    assert red == 1.0 > green > blue
    red, green, blue = lamp_colour(9000.0)
    assert blue == 1.0 > green > red


def test_vignette_darkens_corners_by_its_fraction() -> None:
    lamp = replace(PERFECT.illumination, vignette=0.3)
    image = _photograph(replace(PERFECT, illumination=lamp), np.zeros((4, 96, 96), np.float32)).astype(float)
    assert image[0, 0, 0] / image[48, 48, 0] == pytest.approx(0.7, abs=0.02)


def test_blur_removes_detail_and_noise_adds_as_much_as_said() -> None:
    amounts = draw_cell(np.random.default_rng(0), "basophil", size_px=96, size_um=21.5)
    sharp = _photograph(PERFECT, amounts).astype(float)
    blurred = _photograph(replace(PERFECT, optics=Optics(blur_um=0.5)), amounts).astype(float)
    assert np.abs(np.diff(blurred, axis=0)).mean() < 0.6 * np.abs(np.diff(sharp, axis=0)).mean()
    assert blurred.mean() == pytest.approx(sharp.mean(), abs=1.0)
    noisy = _photograph(replace(PERFECT, sensor=Sensor(5.0, None)), _flat(HAEMOGLOBIN, 1.0)).astype(float)
    assert noisy.std((0, 1)).mean() == pytest.approx(5.0, rel=0.1)


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("stain", "intensity", -1.0),
        ("illumination", "colour_temperature_kelvin", 0.0),
        ("illumination", "vignette", 1.1),
        ("optics", "field_of_view_um", 0.0),
        ("optics", "blur_um", float("nan")),
        ("sensor", "jpeg_quality", 0),
        ("sensor", "noise_grey_levels", -2.0),
    ],
)
def test_impossible_sites_are_refused(part: str, field: str, value: float) -> None:
    with pytest.raises(DataError, match=f"{part}.{field}"):
        replace(PERFECT, **{part: replace(getattr(PERFECT, part), **{field: value})})


def test_sites_differ_in_mean_colour_by_more_than_the_images_of_each() -> None:
    means = {name: synthesize(48, site=name, seed=2, image_size_px=32).images.mean((1, 2)) for name in SYNTHETIC_SITES}
    names = list(means)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            gap = np.abs(means[first].mean(0) - means[second].mean(0)).max()
            assert gap > max(means[first].std(0).max(), means[second].std(0).max()), (first, second)
