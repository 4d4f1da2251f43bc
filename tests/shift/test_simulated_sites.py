"""Drawn laboratories: reproducible, coherent over their images, of every number of causes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from bloodauto.errors import DataError
from bloodauto.shift.corruptions.registry import FAMILIES, find_family
from bloodauto.shift.simulated_sites import MIN_SHIFT_FACTORS, SHIFT_FACTORS, SimulatedSite, draw_simulated_sites


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(60, 200, (4, 32, 32, 3), dtype=np.uint8)


def test_the_same_seed_draws_the_same_laboratories_and_a_longer_draw_begins_with_the_shorter() -> None:
    assert draw_simulated_sites(5, seed=3) == draw_simulated_sites(9, seed=3)[:5]
    assert draw_simulated_sites(5, seed=3) != draw_simulated_sites(5, seed=4)


def test_every_number_of_causes_comes_equally_often_and_no_cause_twice() -> None:
    numbers_of_causes = range(MIN_SHIFT_FACTORS, len(SHIFT_FACTORS) + 1)
    shifts = draw_simulated_sites(10 * len(numbers_of_causes), seed=0)
    assert Counter(len(shift.families) for shift in shifts) == dict.fromkeys(numbers_of_causes, 10)
    cause_of = {family.name: number for number, families in enumerate(SHIFT_FACTORS) for family in families}
    for shift in shifts:
        numbers = [cause_of[family.name] for family in shift.families]
        assert numbers == sorted(set(numbers))


def test_every_single_family_is_among_the_causes() -> None:
    listed = [family.name for families in SHIFT_FACTORS for family in families]
    assert sorted(listed) == sorted(family.name for family in FAMILIES if family.group != "combined")


def test_groups_are_named_once() -> None:
    both = SimulatedSite((find_family("eosin_intensity"), find_family("stain_hue")), (2.0, 3.0), 0.0, 0)
    assert both.groups == ("stain",)
    assert both.mean_severity == 2.5


def test_rendering_repeats_itself_and_leaves_the_images_alone(images: np.ndarray) -> None:
    before = images.copy()
    for shift in draw_simulated_sites(6, seed=1):
        assert np.array_equal(shift.render(images), shift.render(images))
    assert np.array_equal(images, before)


@pytest.mark.parametrize("name", ["brightness", "stain_hue", "scale", "translation"])
def test_what_belongs_to_the_place_is_the_same_for_all_its_images(images: np.ndarray, name: str) -> None:
    same = np.stack([images[0]] * 3)
    rendered = SimulatedSite((find_family(name),), (3.0,), 0.0, 5).render(same)
    assert np.array_equal(rendered[0], rendered[1])
    assert np.array_equal(rendered[0], rendered[2])
    assert not np.array_equal(rendered[0], same[0])


@pytest.mark.parametrize("name", ["gaussian_noise", "stain_deposit"])
def test_dirt_and_noise_fall_elsewhere_on_every_image(images: np.ndarray, name: str) -> None:
    rendered = SimulatedSite((find_family(name),), (4.0,), 1.0, 5).render(np.stack([images[0]] * 2))
    assert not np.array_equal(rendered[0], rendered[1])


def test_dirt_lies_on_about_the_share_of_images_that_the_place_has(images: np.ndarray) -> None:
    same = np.stack([images[0]] * 200)
    rendered = SimulatedSite((find_family("stain_deposit"),), (4.0,), 0.3, 5).render(same)
    assert 0.2 < np.mean([not np.array_equal(one, images[0]) for one in rendered]) < 0.4


def test_causes_have_severities_of_their_own() -> None:
    for shift in draw_simulated_sites(12, seed=0):
        assert len(set(shift.severities)) == len(shift.families)
        assert all(1 <= severity <= 5 for severity in shift.severities)
        assert 0 <= shift.artefact_rate <= 0.5


def test_a_harsher_place_changes_more(images: np.ndarray) -> None:
    def change(severity: float) -> float:
        families = find_family("contrast"), find_family("resolution")
        rendered = SimulatedSite(families, (severity, severity), 0.0, 5).render(images)
        return float(np.abs(rendered.astype(int) - images).mean())

    assert change(1.0) < change(2.5) < change(5.0)


def test_images_of_another_kind_are_refused(images: np.ndarray) -> None:
    shift = draw_simulated_sites(1, seed=0)[0]
    with pytest.raises(DataError, match="uint8"):
        shift.render(images / 255)
    with pytest.raises(DataError, match="uint8"):
        shift.render(images[0])
