"""What training rehearses: the declared table against the operations and families themselves."""

from __future__ import annotations

import numpy as np
import pytest

from bloodauto.shift.corruptions.registry import FAMILIES, find_family
from bloodauto.shift.overlap import OPERATIONS_WITHOUT_OVERLAP, OVERLAPS, strongest_strengths, trained_severities
from bloodauto.transforms import (
    OPERATIONS,
    Apply,
    AugMix,
    OneOf,
    RandAugment,
    Sequence,
    StainJitter,
    Symmetries,
    UniformRange,
)

NEVER_COVERED = {"vignette", "pixelation", "stain_deposit", "bubble", "crease", "camera", "combined_shift"}


def reached(*policies) -> dict[str, float]:
    return {seen.family: seen.severity for seen in trained_severities(policies)}


def test_every_operation_is_declared_once_and_for_all() -> None:
    overlapping = {overlap.operation for overlap in OVERLAPS}
    assert overlapping.isdisjoint(OPERATIONS_WITHOUT_OVERLAP)
    assert overlapping | OPERATIONS_WITHOUT_OVERLAP == set(OPERATIONS)
    assert {overlap.family for overlap in OVERLAPS} <= {family.name for family in FAMILIES}


def test_without_augmentation_nothing_is_rehearsed() -> None:
    assert reached(Sequence(())) == reached(Symmetries()) == {}


def test_levels_are_compared_in_the_units_of_the_family() -> None:
    # Radii of up to 2.1 % of the side are the family's severity 3; noise of 15 levels is its severity 3.
    assert reached(Apply("defocus_blur", 0.7))["defocus"] == pytest.approx(3.0)
    assert reached(Apply("noise", 0.6))["gaussian_noise"] == pytest.approx(3.0)
    # JPEG down to quality 55 stays above the family's mildest 50.
    assert "jpeg" not in reached(Apply("jpeg", 0.5))
    assert reached(Apply("jpeg", 1.0))["jpeg"] == pytest.approx(4.2)
    # Cutting out up to half of each side covers a quarter of the area.
    assert reached(Apply("cutout", 1.0))["occlusion"] == 5.0


def test_the_strongest_of_several_policies_counts() -> None:
    weak, strong = Apply("zoom", 0.2), Apply("zoom", 0.6)
    assert reached(weak, strong) == reached(strong) == reached(OneOf((weak, Sequence((strong,)))))
    assert reached(weak)["scale"] < reached(strong)["scale"]


def test_ranges_in_physical_units_are_compared_as_they_are() -> None:
    assert reached(UniformRange("rotate", -20, 35))["rotation"] == pytest.approx(3.0)
    assert reached(UniformRange("jpeg", 18, 95))["jpeg"] == pytest.approx(3.0)
    assert reached(UniformRange("zoom", 0.5, 1.1))["scale"] == 5.0
    assert "scale" not in reached(UniformRange("zoom", 0.98, 1.02))


def test_policies_within_policies_are_found() -> None:
    policy = Sequence(
        (StainJitter(0.5), OneOf((AugMix(magnitude=0.4, operations=("noise", "hue")), Apply("jpeg", 0.9))))
    )
    assert strongest_strengths(policy) == pytest.approx(
        {"stain_jitter": 0.25, "noise": 10.0, "hue": 16.0, "jpeg": 81.0}
    )


def test_what_no_operation_does_is_never_rehearsed_nor_are_all_causes_at_once() -> None:
    known = reached(RandAugment(num_ops=4, magnitude=0.9, operations="cells"), StainJitter(1.0))
    assert NEVER_COVERED.isdisjoint(known)
    assert {"defocus", "gamma", "stain_hue", "scale"} <= set(known)


#: Chosen by judgement: these hide parts in another colour and shape than a speck, or know no strength.
JUDGED = ("equalize", "auto_contrast", "cutout", "grid_mask")


@pytest.mark.parametrize("overlap", [one for one in OVERLAPS if one.operation not in JUDGED])
def test_an_operation_comes_near_the_family_it_is_said_to_rehearse(overlap, cells: np.ndarray) -> None:
    """The nearest of many draws of the operation undoes a part of the family's change, in one of its directions at least.

    Noise and the grain of a smear never repeat. For the families that touch nothing else it is the amount of detail that
    must come near.
    """
    family, image = find_family(overlap.family), cells[0].astype(float)
    rng = np.random.default_rng(0)
    repeated = np.repeat(cells[:1], 200, axis=0)
    tries = np.concatenate([Apply(overlap.operation, magnitude)(repeated, rng) for magnitude in (0.5, 1.0)])
    tries = tries.astype(np.float32)
    fine = family.group == "sensor" or family.name in ("defocus", "motion")
    measure = _detail if fine else lambda pictures: pictures
    nearness = []
    for seed in range(12):
        shown = measure(family.apply(cells[0], 3, np.random.default_rng(seed)).astype(np.float32))
        left = np.abs(measure(tries) - shown).reshape(len(tries), -1).mean(axis=1).min()
        nearness.append(left / np.abs(measure(image) - shown).mean())
    assert min(nearness) < (0.2 if fine else 0.9)


def _detail(pictures: np.ndarray) -> np.ndarray:
    return np.abs(np.diff(pictures, axis=-2)).mean(axis=(-1, -2, -3))
