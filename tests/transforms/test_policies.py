"""Policies: what is drawn, how often, from which seed, in which unit."""

from __future__ import annotations

import collections
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bloodauto.config.recipe import (
    OPERATION_SETS,
    OPERATION_SPECS,
    AugMixSettings,
    OperationStep,
    RandAugmentSettings,
    RangeSpec,
    TrivialAugmentSettings,
)
from bloodauto.errors import DataError
from bloodauto.transforms import (
    OPERATIONS,
    ApplyOperation,
    AugMix,
    OneOf,
    Policy,
    RandAugment,
    Sequence,
    Symmetries,
    TrivialAugment,
)
from bloodauto.types import Floats, Image, Images


def apply(name: str, magnitude: float | None = None, rate: float = 1.0) -> ApplyOperation:
    return ApplyOperation(OperationStep(operation=name, magnitude=magnitude, rate=rate))


def apply_range(name: str, low: float, high: float, rate: float = 1.0) -> ApplyOperation:
    allowed = OPERATION_SPECS[name].range
    assert allowed is not None
    step = {"operation": name, f"range_{allowed.unit}": [low, high], "rate": rate}
    return ApplyOperation(OperationStep.model_validate(step))


def rand_augment(num_ops: int = 3, magnitude: float = 0.5, **fields: Any) -> RandAugment:
    return RandAugment(RandAugmentSettings(num_ops=num_ops, magnitude=magnitude, **fields))


def aug_mix(**fields: Any) -> AugMix:
    return AugMix(AugMixSettings(**fields))


def trivial_augment(**fields: Any) -> TrivialAugment:
    return TrivialAugment(TrivialAugmentSettings(**fields))


POLICIES: dict[str, Policy] = {
    "rand_augment": rand_augment(),
    "rand_augment_with_noise": rand_augment(2, 0.4, rate=0.7, magnitude_std=0.2, operations="cells"),
    "trivial_augment": trivial_augment(),
    "augmix": aug_mix(),
    "magnitude": apply("gaussian_blur", 0.8, rate=0.5),
    "range": apply_range("rotate", -20.0, 90.0, rate=0.8),
    "symmetries": Symmetries(),
    "sequence": Sequence((Symmetries(), apply("stain_jitter", 0.3, 0.5), rand_augment(1, operations="cells"))),
    "one_of": OneOf((Symmetries(), aug_mix(width=2), rand_augment(operations="paper")), (1.0, 2.0, 3.0)),
}
each_policy = pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)


@pytest.fixture
def images(smooth_image: Image) -> Images:
    return np.stack([np.roll(smooth_image, k, axis=0) for k in range(12)])


def names(policy: Policy, count: int, seed: int = 0) -> list[list[str]]:
    return [[step.operation for step in chain] for chain in policy.draw(count, 16, 16, np.random.default_rng(seed))]


@each_policy
def test_a_policy_keeps_shape_type_and_source_and_follows_its_seed(policy: Policy, images: Images) -> None:
    original = images.copy()
    first, repeated, other = (policy(images, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.shape == images.shape
    assert first.dtype == np.uint8
    assert not np.shares_memory(first, images)
    np.testing.assert_array_equal(images, original)
    np.testing.assert_array_equal(first, repeated)
    assert (first != other).any()


@each_policy
def test_images_of_a_batch_are_drawn_separately(policy: Policy, smooth_image: Image) -> None:
    copies = np.repeat(smooth_image[None], 48, axis=0)
    assert len({result.tobytes() for result in policy(copies, np.random.default_rng(0))}) >= 6


@each_policy
def test_threads_do_not_disturb_each_other(policy: Policy, images: Images) -> None:
    expected = [policy(images, np.random.default_rng(seed)) for seed in range(12)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda seed: policy(images, np.random.default_rng(seed)), range(12)))
    for first, second in zip(expected, results, strict=True):
        np.testing.assert_array_equal(first, second)


@each_policy
def test_policies_are_values(policy: Policy) -> None:
    assert hash(policy) == hash(policy)
    with pytest.raises(AttributeError):
        policy.settings = None  # type: ignore[attr-defined]
    assert eval(repr(policy)) == policy
    assert pickle.loads(pickle.dumps(policy)) == policy


@each_policy
def test_empty_batches(policy: Policy, images: Images) -> None:
    assert policy(images[:0], np.random.default_rng(0)).shape == images[:0].shape


@pytest.mark.parametrize("operations", OPERATION_SETS)
def test_rand_augment_draws_every_operation_equally_often(operations: str) -> None:
    drawn = names(rand_augment(operations=operations), 4000)
    assert {len(chain) for chain in drawn} == {3}
    counts = collections.Counter(name for chain in drawn for name in chain)
    declared = OPERATION_SETS[operations]
    assert set(counts) == set(declared)
    expected = 12000 / len(declared)
    chi_squared = sum((count - expected) ** 2 / expected for count in counts.values())
    # The chance to exceed this is below one in ten thousand.
    assert chi_squared < len(declared) + 6 * np.sqrt(2 * len(declared))


def test_operations_are_drawn_with_replacement_and_in_any_order() -> None:
    drawn = names(rand_augment(2, operations=("rotate", "gamma")), 400)
    assert {tuple(chain) for chain in drawn} == {(a, b) for a in ("rotate", "gamma") for b in ("rotate", "gamma")}


def test_a_name_that_occurs_twice_is_drawn_twice_as_often() -> None:
    drawn = [chain[0] for chain in names(rand_augment(1, operations=("rotate", "rotate", "gamma")), 3000)]
    assert drawn.count("rotate") / 3000 == pytest.approx(2 / 3, abs=0.04)


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_rate_is_the_fraction_of_operations_applied(rate: float) -> None:
    drawn = names(rand_augment(rate=rate), 3000)
    assert np.mean([len(chain) for chain in drawn]) / 3 == pytest.approx(rate, abs=0.03)
    for policy in (apply("rotate", 0.5, rate=rate), apply_range("rotate", 0, 10, rate=rate)):
        assert np.mean([len(chain) for chain in names(policy, 3000)]) == pytest.approx(rate, abs=0.03)


def rotations(policy: Policy, count: int) -> Floats:
    """The angles that were drawn, in degrees."""
    chains = policy.draw(count, 9, 9, np.random.default_rng(0))
    return np.array([np.rad2deg(np.arcsin(chain[0].payload.matrix[1, 0])) for chain in chains])  # type: ignore[union-attr]


def test_magnitude_noise_is_normal_and_clipped() -> None:
    plain = rotations(rand_augment(1, operations=("rotate",)), 4000)
    np.testing.assert_allclose(np.abs(plain), 15.0)
    noisy = np.abs(rotations(rand_augment(1, magnitude_std=0.1, operations=("rotate",)), 4000)) / 30
    assert noisy.mean() == pytest.approx(0.5, abs=0.01)
    assert noisy.std() == pytest.approx(0.1, rel=0.06)
    clipped = np.abs(rotations(rand_augment(1, 1.0, magnitude_std=0.5, operations=("rotate",)), 4000)) / 30
    assert clipped.max() <= 1 + 1e-9
    assert np.mean(clipped > 1 - 1e-9) == pytest.approx(0.5, abs=0.04)


def test_trivial_augment_draws_one_operation_of_any_magnitude() -> None:
    assert {len(chain) for chain in names(trivial_augment(), 50)} == {1}
    magnitudes = np.abs(rotations(trivial_augment(max_magnitude=0.8, operations=("rotate",)), 4000)) / 30
    assert magnitudes.max() == pytest.approx(0.8, abs=0.01)
    assert magnitudes.mean() == pytest.approx(0.4, abs=0.02)


def test_symmetries_are_equally_likely() -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 6, 6, 3), dtype=np.uint8)
    results = Symmetries()(np.repeat(image, 4000, axis=0), np.random.default_rng(0))
    counts = collections.Counter(result.tobytes() for result in results)
    assert len(counts) == 8
    assert min(counts.values()) > 0.85 * 4000 / 8
    sums = {np.frombuffer(key, np.uint8).astype(int).sum() for key in counts}
    assert sums == {int(image.astype(int).sum())}


def test_one_of_draws_by_weight() -> None:
    policy = OneOf((apply("gamma", 0.5), apply("rotate", 0.5), Sequence(())), (1.0, 3.0, 0.0))
    drawn = [chain[0] for chain in names(policy, 4000)]
    assert drawn.count("rotate") / 4000 == pytest.approx(0.75, abs=0.03)
    equal = OneOf((apply("gamma", 0.5), Sequence(())))
    assert np.mean([len(chain) for chain in names(equal, 4000)]) == pytest.approx(0.5, abs=0.03)


def test_a_sequence_keeps_its_order() -> None:
    policy = Sequence((apply("gamma", 0.5), apply("rotate", 0.5), apply("noise", 0.5)))
    assert names(policy, 3) == [["gamma", "rotate", "noise"]] * 3
    images = np.zeros((2, 4, 4, 3), np.uint8)
    np.testing.assert_array_equal(Sequence(())(images, np.random.default_rng(0)), images)


def test_augmix_is_a_mean_of_versions_and_grows_with_its_magnitude(images: Images) -> None:
    graded = ("rotate", "brightness", "contrast", "color", "shear_x")
    effects = [
        np.abs(aug_mix(magnitude=m, operations=graded)(images, np.random.default_rng(0)).astype(int) - images).mean()
        for m in (0.0, 0.2, 0.5, 1.0)
    ]
    assert effects[0] < 0.2
    assert effects[0] < effects[1] < effects[2] < effects[3]
    constant = np.full((4, 8, 8, 3), 90, np.uint8)
    geometric = aug_mix(operations=("rotate", "shear_y"), magnitude=1.0)
    np.testing.assert_allclose(geometric(constant, np.random.default_rng(0)).astype(int), constant, atol=1)


def test_the_largest_strength_of_each_operation_is_known() -> None:
    policy = Sequence(
        (
            apply("stain_jitter", 0.5),
            OneOf((aug_mix(magnitude=0.4, operations=("noise", "hue")), apply("jpeg", 0.9), apply("noise", 0.2))),
            apply_range("zoom", 0.5, 1.1),
            trivial_augment(max_magnitude=0.1, operations=("rotate",)),
            rand_augment(1, 0.3, operations=("rotate", "equalize")),
            Symmetries(),
        )
    )
    assert policy.max_strengths() == pytest.approx(
        {"stain_jitter": 0.25, "noise": 10.0, "hue": 16.0, "jpeg": 81.0, "zoom": 1.0, "rotate": 9.0, "equalize": 0.3}
    )


@given(
    num_ops=st.integers(1, 6),
    magnitude=st.floats(0, 1),
    rate=st.floats(0, 1),
    magnitude_std=st.floats(0, 1),
    operations=st.one_of(
        st.sampled_from(sorted(OPERATION_SETS)), st.lists(st.sampled_from(sorted(OPERATIONS)), min_size=1).map(tuple)
    ),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=300)
def test_any_policy_on_any_image(
    num_ops: int,
    magnitude: float,
    rate: float,
    magnitude_std: float,
    operations: str | tuple[str, ...],
    height: int,
    width: int,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (3, height, width, 3), dtype=np.uint8)
    drawn = rand_augment(num_ops, magnitude, rate=rate, magnitude_std=magnitude_std, operations=operations)
    results = Sequence((Symmetries(), drawn))(images, rng)
    assert results.dtype == np.uint8
    assert results.shape == images.shape


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 4, 4, 3), np.float32),
        np.zeros((4, 4, 3), np.uint8),
        np.zeros((2, 4, 4, 1), np.uint8),
        np.zeros((2, 0, 4, 3), np.uint8),
        [[1]],
    ],
)
def test_other_images_are_refused(images: Any) -> None:
    with pytest.raises(DataError, match=r"uint8 array \(n, height, width, 3\)"):
        rand_augment()(images, np.random.default_rng(0))


def test_arrays_in_another_memory_order_are_accepted(smooth_image: Image) -> None:
    images = np.stack([smooth_image] * 4)
    policy = rand_augment()
    expected = policy(images, np.random.default_rng(0))
    np.testing.assert_array_equal(policy(np.asfortranarray(images), np.random.default_rng(0)), expected)
    np.testing.assert_array_equal(policy(np.repeat(images, 2, axis=0)[::2], np.random.default_rng(0)), expected)


# ---- ranges


RANGES: dict[str, RangeSpec] = {name: spec.range for name, spec in OPERATION_SPECS.items() if spec.range is not None}


def at_value(name: str, value: float, image: Image) -> Floats:
    return apply_range(name, value, value)(image[None], np.random.default_rng(0))[0].astype(np.float64)


@pytest.mark.parametrize("name", RANGES)
def test_the_ends_of_a_range_give_images_of_any_size(name: str, textured_image: Image) -> None:
    for end in (RANGES[name].lowest, RANGES[name].highest):
        for image in (textured_image, textured_image[:1, :1], textured_image[:3, :20]):
            changed = apply_range(name, end, end)(image[None], np.random.default_rng(0))
            assert changed.dtype == np.uint8
            assert changed.shape == (1, *image.shape)


def test_values_are_in_their_units(smooth_image: Image) -> None:
    image = smooth_image[:, :64]
    np.testing.assert_array_equal(at_value("brightness", 0.2, image // 2), image // 2 + 51)
    np.testing.assert_array_equal(at_value("rotate", 90, image), np.rot90(image))
    np.testing.assert_array_equal(at_value("translate_x", 0.25, image)[:, 16:], image[:, :48])
    np.testing.assert_array_equal(at_value("translate_y", -0.5, image)[:32], image[32:])
    np.testing.assert_allclose(at_value("shear_x", 0.5, image)[0], image[0], atol=1)
    means = image.mean(axis=(0, 1))
    assert np.abs(at_value("contrast", 0.0, image) - means).max() <= 1
    np.testing.assert_allclose(at_value("contrast", 0.5, image), (image + means) / 2, atol=1)
    grey = at_value("saturation", 0.0, image)
    assert np.ptp(grey, axis=2).max() <= 1
    np.testing.assert_array_equal(grey, at_value("color", 1.0, image))
    np.testing.assert_array_equal(at_value("exposure", 1.0, image // 2), image // 2 * 2)
    np.testing.assert_array_equal(at_value("posterize", 4.0, image), image // 16 * 16)


def test_a_zoom_of_two_doubles_lengths() -> None:
    image = np.zeros((65, 65, 3), np.uint8)
    image[24:41, 24:41] = 200  # 17 pixels a side, in the centre
    for factor in (2.0, 0.75):
        zoomed = at_value("zoom", factor, image)
        assert (zoomed[32, :, 0] > 100).sum() == pytest.approx(17 * factor, abs=1)


def test_noise_is_in_levels() -> None:
    grey = np.full((200, 200, 3), 128, np.uint8)
    assert at_value("noise", 12.0, grey).std() == pytest.approx(12.0, rel=0.02)


def test_holes_have_the_declared_fraction_of_the_side() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    image[:50] = 250
    sides = []
    for seed in range(40):
        holes = (apply_range("cutout", 0.3, 0.3)(image[None], np.random.default_rng(seed))[0] != image).any(axis=2)
        sides.append(max(holes.any(axis=0).sum(), holes.any(axis=1).sum()))
    assert max(sides) == 30
    grids = apply_range("grid_mask", 0.5, 0.5)(np.repeat(image[None], 40, axis=0), np.random.default_rng(0))
    assert (grids != image).any(axis=3).mean() == pytest.approx(0.25, abs=0.03)


def test_values_are_drawn_uniformly_from_the_interval_for_each_image() -> None:
    grey = np.full((3000, 1, 1, 3), 100, np.uint8)
    added = apply_range("brightness", 0.1, 0.3)(grey, np.random.default_rng(0))[:, 0, 0, 0] / 255 - 100 / 255
    assert added.min() == pytest.approx(0.1, abs=0.003)
    assert added.max() == pytest.approx(0.3, abs=0.003)
    assert added.mean() == pytest.approx(0.2, abs=0.003)
    assert added.std() == pytest.approx(0.2 / np.sqrt(12), rel=0.05)
    some = apply_range("brightness", 0.1, 0.3, rate=0.25)(grey, np.random.default_rng(0))
    assert (some != grey).any(axis=(1, 2, 3)).mean() == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("name", ["brightness", "contrast", "translate_x", "hue", "zoom"])
def test_a_magnitude_equals_its_interval(name: str, smooth_image: Image) -> None:
    """A symmetric operation at magnitude m draws from -m to m times the limit."""
    limit = 0.4 * OPERATION_SPECS[name].limit
    low, high = {"contrast": (1 - limit, 1 + limit), "zoom": (2**-limit, 2**limit)}.get(name, (-limit, limit))
    images = np.repeat(smooth_image[None, :24, :24], 1500, axis=0)

    def effects(policy: Policy) -> Floats:
        return np.sort(np.abs(policy(images, np.random.default_rng(1)).astype(float) - images).mean(axis=(1, 2, 3)))

    by_magnitude, by_range = effects(apply(name, 0.4)), effects(apply_range(name, low, high))
    if name == "zoom":
        # A zoom's factor is drawn uniformly, its magnitude's octaves are: another distribution with the same ends.
        assert by_magnitude[-1] == pytest.approx(by_range[-1], rel=0.1)
    else:
        quartiles = [0.25, 0.5, 0.75]
        np.testing.assert_allclose(np.quantile(by_magnitude, quartiles), np.quantile(by_range, quartiles), rtol=0.1)
