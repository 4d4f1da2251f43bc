"""Simulated sites: reproducible, coherent over their images, of every number of shift factors."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from bloodauto.errors import DataError
from bloodauto.shift.corruptions import FAMILIES, SHIFT_FACTORS, find_family
from bloodauto.shift.simulated_sites import (
    FAMILIES_OF_FACTORS,
    MIN_SHIFT_FACTORS,
    SimulatedSite,
    draw_simulated_sites,
)
from bloodauto.types import Images


@pytest.fixture
def images() -> Images:
    return np.random.default_rng(0).integers(60, 200, (4, 32, 32, 3), dtype=np.uint8)


def test_the_same_seed_draws_the_same_sites_and_a_longer_draw_begins_with_the_shorter() -> None:
    assert draw_simulated_sites(5, seed=3) == draw_simulated_sites(9, seed=3)[:5]
    assert draw_simulated_sites(5, seed=3) != draw_simulated_sites(5, seed=4)


def test_every_number_of_shift_factors_occurs_equally_often_and_no_factor_twice() -> None:
    numbers = range(MIN_SHIFT_FACTORS, len(SHIFT_FACTORS) + 1)
    sites = draw_simulated_sites(10 * len(numbers), seed=0)
    assert Counter(len(site.families) for site in sites) == dict.fromkeys(numbers, 10)
    for site in sites:
        factors = [SHIFT_FACTORS.index(family.factor) for family in site.families if family.factor is not None]
        assert factors == sorted(set(factors))
        assert len(factors) == len(site.families)


def test_every_single_family_belongs_to_one_shift_factor() -> None:
    names = [family.name for families in FAMILIES_OF_FACTORS for family in families]
    assert sorted(names) == sorted(family.name for family in FAMILIES if family.group != "combined")
    assert all(FAMILIES_OF_FACTORS)


def test_groups_are_named_once() -> None:
    site = SimulatedSite((find_family("eosin_intensity"), find_family("stain_hue")), (2.0, 3.0), 0.0, 0)
    assert site.groups == ("stain",)
    assert site.mean_severity == 2.5


def test_rendering_repeats_itself_and_does_not_change_the_images(images: Images) -> None:
    original = images.copy()
    for site in draw_simulated_sites(6, seed=1):
        assert np.array_equal(site.render(images), site.render(images))
    assert np.array_equal(images, original)


@pytest.mark.parametrize("name", ["brightness", "stain_hue", "scale", "translation"])
def test_shifts_of_a_site_are_the_same_for_all_its_images(images: Images, name: str) -> None:
    copies = np.stack([images[0]] * 3)
    rendered = SimulatedSite((find_family(name),), (3.0,), 0.0, 5).render(copies)
    assert np.array_equal(rendered[0], rendered[1])
    assert np.array_equal(rendered[0], rendered[2])
    assert not np.array_equal(rendered[0], copies[0])


@pytest.mark.parametrize("name", ["gaussian_noise", "stain_deposit"])
def test_artefacts_and_noise_differ_from_image_to_image(images: Images, name: str) -> None:
    rendered = SimulatedSite((find_family(name),), (4.0,), 1.0, 5).render(np.stack([images[0]] * 2))
    assert not np.array_equal(rendered[0], rendered[1])


def test_about_the_fraction_of_images_that_the_site_has_shows_artefacts(images: Images) -> None:
    copies = np.stack([images[0]] * 200)
    rendered = SimulatedSite((find_family("stain_deposit"),), (4.0,), 0.3, 5).render(copies)
    assert 0.2 < np.mean([not np.array_equal(image, images[0]) for image in rendered]) < 0.4


def test_each_shift_factor_has_its_severity() -> None:
    for site in draw_simulated_sites(12, seed=0):
        assert len(set(site.severities)) == len(site.families)
        assert all(1 <= severity <= 5 for severity in site.severities)
        assert 0 <= site.artefact_rate <= 0.5


def test_a_harsher_site_changes_more(images: Images) -> None:
    def change(severity: float) -> float:
        families = find_family("contrast"), find_family("resolution")
        rendered = SimulatedSite(families, (severity, severity), 0.0, 5).render(images)
        return float(np.abs(rendered.astype(int) - images).mean())

    assert change(1.0) < change(2.5) < change(5.0)


def test_other_images_are_refused(images: Images) -> None:
    site = draw_simulated_sites(1, seed=0)[0]
    with pytest.raises(DataError, match="uint8"):
        site.render(images / 255)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="uint8"):
        site.render(images[0])
