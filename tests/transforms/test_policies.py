"""Policies: what is drawn, how often, from which seed, and how mistakes are told."""

from __future__ import annotations

import collections
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bloodauto.errors import DataError, RecipeError
from bloodauto.transforms import (
    OPERATION_SETS,
    OPERATIONS,
    Apply,
    AugMix,
    OneOf,
    Policy,
    RandAugment,
    Sequence,
    StainJitter,
    Symmetries,
    TrivialAugment,
    UniformRange,
)

POLICIES: dict[str, Policy] = {
    "rand_augment": RandAugment(),
    "rand_augment_with_noise": RandAugment(2, 0.4, 0.7, magnitude_std=0.2, operations="cells"),
    "trivial_augment": TrivialAugment(),
    "augmix": AugMix(),
    "apply": Apply("gaussian_blur", 0.8, rate=0.5),
    "between": UniformRange("rotate", -20.0, 90.0, rate=0.8),
    "stain_jitter": StainJitter(),
    "symmetries": Symmetries(),
    "sequence": Sequence((Symmetries(), StainJitter(0.3, 0.5), RandAugment(1, operations="cells"))),
    "one_of": OneOf((Symmetries(), AugMix(width=2), RandAugment(operations="paper")), (1.0, 2.0, 3.0)),
}


@pytest.fixture
def images(smooth_image) -> np.ndarray:
    return np.stack([np.roll(smooth_image, k, axis=0) for k in range(12)])


def names(policy: Policy, count: int, seed: int = 0) -> list[list[str]]:
    return [[step.operation for step in chain] for chain in policy.draw(count, 16, 16, np.random.default_rng(seed))]


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_a_policy_keeps_shape_type_and_source_and_follows_its_seed(policy, images):
    before = images.copy()
    first, again, other = (policy(images, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.shape == images.shape
    assert first.dtype == np.uint8
    assert not np.shares_memory(first, images)
    np.testing.assert_array_equal(images, before)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_images_of_a_batch_are_drawn_on_their_own(policy, smooth_image):
    same = np.repeat(smooth_image[None], 48, axis=0)
    assert len({result.tobytes() for result in policy(same, np.random.default_rng(0))}) >= 6


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_threads_do_not_disturb_each_other(policy, images):
    expected = [policy(images, np.random.default_rng(seed)) for seed in range(12)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda seed: policy(images, np.random.default_rng(seed)), range(12)))
    for one, other in zip(expected, results, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_policies_are_values(policy):
    assert hash(policy) == hash(policy)
    with pytest.raises(AttributeError):
        policy.magnitude = 1.0
    assert eval(repr(policy)) == policy


def test_lists_as_yaml_gives_them_are_taken():
    assert RandAugment(operations=["rotate", "hue"], border=[1, 2, 3]) == RandAugment(
        operations=("rotate", "hue"), border=(1, 2, 3)
    )
    listed = Sequence([OneOf([AugMix(operations=["hue"])], [2.0]), TrivialAugment(operations=["gamma"])])
    assert hash(listed) == hash(
        Sequence((OneOf((AugMix(operations=("hue",)),), (2.0,)), TrivialAugment(operations=("gamma",))))
    )


def test_empty_batches(images):
    for policy in POLICIES.values():
        assert policy(images[:0], np.random.default_rng(0)).shape == images[:0].shape


@pytest.mark.parametrize("operations", OPERATION_SETS)
def test_rand_augment_draws_every_operation_equally_often(operations):
    drawn = names(RandAugment(3, 0.5, operations=operations), 4000)
    assert {len(chain) for chain in drawn} == {3}
    counts = collections.Counter(name for chain in drawn for name in chain)
    declared = OPERATION_SETS[operations]
    assert set(counts) == set(declared)
    expected = 12000 / len(declared)
    chi_squared = sum((count - expected) ** 2 / expected for count in counts.values())
    # The chance to exceed this is below one in ten thousand.
    assert chi_squared < len(declared) + 6 * np.sqrt(2 * len(declared))


def test_operations_are_drawn_with_replacement_and_in_any_order():
    drawn = names(RandAugment(2, 0.5, operations=("rotate", "gamma")), 400)
    assert {tuple(chain) for chain in drawn} == {(a, b) for a in ("rotate", "gamma") for b in ("rotate", "gamma")}


def test_a_name_given_twice_is_drawn_twice_as_often():
    drawn = [chain[0] for chain in names(RandAugment(1, 0.5, operations=("rotate", "rotate", "gamma")), 3000)]
    assert drawn.count("rotate") / 3000 == pytest.approx(2 / 3, abs=0.04)


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_rate_is_the_share_of_operations_applied(rate):
    drawn = names(RandAugment(3, 0.5, rate=rate), 3000)
    assert np.mean([len(chain) for chain in drawn]) / 3 == pytest.approx(rate, abs=0.03)
    applied = names(Apply("rotate", 0.5, rate=rate), 3000)
    assert np.mean([len(chain) for chain in applied]) == pytest.approx(rate, abs=0.03)


def rotations(policy: Policy, count: int) -> np.ndarray:
    chains = policy.draw(count, 9, 9, np.random.default_rng(0))
    return np.array([np.rad2deg(np.arcsin(chain[0].payload.matrix[1, 0])) for chain in chains])


def test_magnitude_noise_is_normal_and_clipped():
    plain = rotations(RandAugment(1, 0.5, operations=("rotate",)), 4000)
    np.testing.assert_allclose(np.abs(plain), 15.0)
    noisy = np.abs(rotations(RandAugment(1, 0.5, magnitude_std=0.1, operations=("rotate",)), 4000)) / 30
    assert noisy.mean() == pytest.approx(0.5, abs=0.01)
    assert noisy.std() == pytest.approx(0.1, rel=0.06)
    clipped = np.abs(rotations(RandAugment(1, 1.0, magnitude_std=0.5, operations=("rotate",)), 4000)) / 30
    assert clipped.max() <= 1 + 1e-9
    assert np.mean(clipped > 1 - 1e-9) == pytest.approx(0.5, abs=0.04)


def test_trivial_augment_draws_one_operation_of_any_magnitude():
    assert {len(chain) for chain in names(TrivialAugment(), 50)} == {1}
    magnitudes = np.abs(rotations(TrivialAugment(0.8, operations=("rotate",)), 4000)) / 30
    assert magnitudes.max() == pytest.approx(0.8, abs=0.01)
    assert magnitudes.mean() == pytest.approx(0.4, abs=0.02)


def test_symmetries_are_equally_likely():
    image = np.random.default_rng(0).integers(0, 256, (1, 6, 6, 3), dtype=np.uint8)
    for policy, count in (
        (Symmetries(), 8),
        (Symmetries(quarter_turns=False), 4),
        (Symmetries(flips=False), 4),
        (Symmetries(flips=False, quarter_turns=False), 1),
    ):
        results = policy(np.repeat(image, 4000, axis=0), np.random.default_rng(0))
        seen = collections.Counter(result.tobytes() for result in results)
        assert len(seen) == count
        assert min(seen.values()) > 0.85 * 4000 / count
        sums = {np.frombuffer(key, np.uint8).astype(int).sum() for key in seen}
        assert sums == {int(image.astype(int).sum())}


def test_one_of_draws_by_weight():
    policy = OneOf((Apply("gamma"), Apply("rotate"), Sequence(())), (1.0, 3.0, 0.0))
    drawn = [chain[0] for chain in names(policy, 4000)]
    assert drawn.count("rotate") / 4000 == pytest.approx(0.75, abs=0.03)
    even = OneOf((Apply("gamma"), Sequence(())))
    assert np.mean([len(chain) for chain in names(even, 4000)]) == pytest.approx(0.5, abs=0.03)


def test_a_sequence_keeps_its_order():
    policy = Sequence((Apply("gamma"), Apply("rotate"), Apply("noise")))
    assert names(policy, 3) == [["gamma", "rotate", "noise"]] * 3
    images = np.zeros((2, 4, 4, 3), np.uint8)
    np.testing.assert_array_equal(Sequence(())(images, np.random.default_rng(0)), images)


def test_augmix_is_a_mean_of_versions_and_grows_with_its_magnitude(images):
    graded = ("rotate", "brightness", "contrast", "color", "shear_x")
    effects = [
        np.abs(AugMix(magnitude=m, operations=graded)(images, np.random.default_rng(0)).astype(int) - images).mean()
        for m in (0.0, 0.2, 0.5, 1.0)
    ]
    assert effects[0] < 0.2
    assert effects[0] < effects[1] < effects[2] < effects[3]
    constant = np.full((4, 8, 8, 3), 90, np.uint8)
    geometric = AugMix(operations=("rotate", "shear_y"), magnitude=1.0)
    np.testing.assert_allclose(geometric(constant, np.random.default_rng(0)).astype(int), constant, atol=1)


@given(
    num_ops=st.integers(0, 6),
    magnitude=st.floats(0, 1),
    rate=st.floats(0, 1),
    magnitude_std=st.floats(0, 1),
    operations=st.one_of(
        st.sampled_from(sorted(OPERATION_SETS)), st.lists(st.sampled_from(sorted(OPERATIONS)), min_size=1).map(tuple)
    ),
    border=st.one_of(
        st.sampled_from(["reflect", "reflect_101", "edge", "wrap"]), st.tuples(*[st.integers(0, 255)] * 3)
    ),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=300)
def test_any_policy_on_any_image(num_ops, magnitude, rate, magnitude_std, operations, border, height, width, seed):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (3, height, width, 3), dtype=np.uint8)
    policy = Sequence((Symmetries(), RandAugment(num_ops, magnitude, rate, magnitude_std, operations, border)))
    results = policy(images, rng)
    assert results.dtype == np.uint8
    assert results.shape == images.shape


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandAugment(magnitude=1.2), r"magnitude: expected a number in \[0, 1\], got 1.2"),
        (lambda: RandAugment(magnitude=float("nan")), "magnitude"),
        (lambda: RandAugment(num_ops=-1), "num_ops: expected an integer of at least 0, got -1"),
        (lambda: RandAugment(num_ops=True), "num_ops"),
        (lambda: RandAugment(operations=("flip",)), "got 'flip'"),
        (lambda: RandAugment(border="mirror"), "border: expected one of reflect.*got 'mirror'"),
        (lambda: RandAugment(border=(0, 0, 300)), "border"),
        (lambda: Apply("standard"), "got 'standard'"),
        (lambda: Apply("rotate", rate=-0.1), "rate"),
        (lambda: StainJitter(2.0), "magnitude"),
        (lambda: TrivialAugment(max_magnitude=2), "max_magnitude"),
        (lambda: AugMix(alpha=0.0), "alpha"),
        (lambda: AugMix(depth=0), "depth"),
        (lambda: OneOf(()), "at least one policy"),
        (lambda: OneOf((Symmetries(),), (1.0, 2.0)), "weights"),
        (lambda: OneOf((Symmetries(),), (0.0,)), "weights"),
    ],
)
def test_mistakes_are_told(make, message):
    with pytest.raises(RecipeError, match=message):
        make()


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
def test_other_images_are_refused(images):
    with pytest.raises(DataError, match=r"uint8 array \(n, height, width, 3\)"):
        RandAugment()(images, np.random.default_rng(0))


def test_arrays_in_another_memory_order_are_taken(smooth_image):
    images = np.stack([smooth_image] * 4)
    expected = RandAugment()(images, np.random.default_rng(0))
    strided = np.asfortranarray(images)
    np.testing.assert_array_equal(RandAugment()(strided, np.random.default_rng(0)), expected)
    np.testing.assert_array_equal(RandAugment()(np.repeat(images, 2, axis=0)[::2], np.random.default_rng(0)), expected)
