"""What training covers: the declared coverage of operations against operations and families themselves."""

from __future__ import annotations

import numpy as np
import pytest

from bloodauto.config.recipe import OPERATION_SPECS, OperationStep, RandAugmentSettings
from bloodauto.shift.corruptions import FAMILIES, find_family
from bloodauto.shift.overlap import training_coverage
from bloodauto.transforms import OPERATIONS, ApplyOperation, OneOf, Policy, RandAugment, Sequence, Symmetries
from bloodauto.types import Floats, Images

NEVER_COVERED = {"vignette", "pixelation", "stain_deposit", "bubble", "crease", "camera", "combined_shift"}
#: Right-angle turns meet ``rotation`` in the one point of 90 degrees.
COVER_NOTHING = {"invert", "solarize", "posterize", "shear_x", "shear_y", "stretch", "sharpness"} | {
    "flip_horizontal",
    "flip_vertical",
    "quarter_turn",
}


def apply(name: str, magnitude: float) -> ApplyOperation:
    has_strength = OPERATION_SPECS[name].range is not None
    return ApplyOperation(OperationStep(operation=name, magnitude=magnitude if has_strength else None))


def apply_range(name: str, field: str, low: float, high: float) -> ApplyOperation:
    return ApplyOperation(OperationStep.model_validate({"operation": name, field: [low, high]}))


def covered(*policies: Policy) -> dict[str, float]:
    return {coverage.family: coverage.severity for coverage in training_coverage(policies)}


def test_families_that_operations_cover_exist() -> None:
    assert {name for name, operation in OPERATIONS.items() if not operation.covers} == COVER_NOTHING
    covered_names = {family for operation in OPERATIONS.values() for family in operation.covers}
    assert {family.name for family in FAMILIES} - covered_names == NEVER_COVERED


def test_without_augmentation_nothing_is_covered() -> None:
    assert covered() == covered(Sequence(())) == covered(Symmetries()) == covered(apply("noise", 0.0)) == {}


def test_levels_are_compared_in_the_units_of_the_family() -> None:
    # Radii of up to 2.1 % of the side are the family's severity 3; noise of 15 levels is its severity 3.
    assert covered(apply("defocus_blur", 0.7))["defocus"] == pytest.approx(3.0)
    assert covered(apply("noise", 0.6))["gaussian_noise"] == pytest.approx(3.0)
    # JPEG down to quality 55 stays above the family's mildest 50.
    assert "jpeg" not in covered(apply("jpeg", 0.5))
    assert covered(apply("jpeg", 1.0))["jpeg"] == pytest.approx(4.2)
    # A hole of up to half of each side covers a quarter of the area.
    assert covered(apply("cutout", 1.0))["occlusion"] == 5.0


def test_the_strongest_of_several_policies_counts() -> None:
    weak, strong = apply("zoom", 0.2), apply("zoom", 0.6)
    assert covered(weak, strong) == covered(strong) == covered(OneOf((weak, Sequence((strong,)))))
    assert covered(weak)["scale"] < covered(strong)["scale"]


def test_ranges_are_compared_in_their_physical_units() -> None:
    assert covered(apply_range("rotate", "range_degrees", -20, 35))["rotation"] == pytest.approx(3.0)
    assert covered(apply_range("jpeg", "range_quality", 18, 95))["jpeg"] == pytest.approx(3.0)
    assert covered(apply_range("zoom", "range_factor", 0.5, 1.1))["scale"] == 5.0
    assert "scale" not in covered(apply_range("zoom", "range_factor", 0.98, 1.02))


def test_families_without_an_operation_and_combined_shifts_are_never_covered() -> None:
    policy = RandAugment(RandAugmentSettings(num_ops=4, magnitude=0.9, operations="cells"))
    families = covered(policy, apply("stain_jitter", 1.0))
    assert NEVER_COVERED.isdisjoint(families)
    assert {"defocus", "gamma", "stain_hue", "scale"} <= set(families)


#: Their coverage is an estimate: they hide parts in another colour and shape than a speck, or have no strength.
NOT_COMPARABLE = ("equalize", "auto_contrast", "cutout", "grid_mask")
COVERED_PAIRS = [
    (name, family)
    for name, operation in OPERATIONS.items()
    for family in operation.covers
    if name not in NOT_COMPARABLE
]


@pytest.mark.parametrize(("operation", "family_name"), COVERED_PAIRS)
def test_an_operation_comes_near_the_family_that_it_covers(operation: str, family_name: str, cells: Images) -> None:
    """The nearest of many draws of the operation undoes a part of the family's change, in one of its directions at least.

    Noise and the grain of a smear never repeat. For the families that touch nothing else it is the amount of detail that
    must come near.
    """
    family, image = find_family(family_name), cells[0].astype(float)
    rng = np.random.default_rng(0)
    repeated = np.repeat(cells[:1], 200, axis=0)
    draws = np.concatenate([apply(operation, magnitude)(repeated, rng) for magnitude in (0.5, 1.0)]).astype(np.float32)
    fine = family.group == "sensor" or family.name in ("defocus", "motion")
    measure = _detail if fine else lambda images: images
    remaining = []
    for seed in range(12):
        shifted = measure(family.apply(cells[0], 3, np.random.default_rng(seed)).astype(np.float32))
        nearest = np.abs(measure(draws) - shifted).reshape(len(draws), -1).mean(axis=1).min()
        remaining.append(nearest / np.abs(measure(image) - shifted).mean())
    assert min(remaining) < (0.2 if fine else 0.9)


def _detail(images: Floats) -> Floats:
    return np.abs(np.diff(images, axis=-2)).mean(axis=(-1, -2, -3))
