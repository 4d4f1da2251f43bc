"""MixUp and CutMix: images and labels are joined alike."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bloodauto.errors import DataError, RecipeError
from bloodauto.transforms import CutMix, MixUp, MixUpOrCutMix
from bloodauto.transforms.mixing import Pairing, mix_targets


def constant_images(count: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Image i has the level 10 i everywhere and the class i."""
    shades = (10 * np.arange(count, dtype=np.uint8))[:, None, None, None]
    return np.broadcast_to(shades, (count, height, width, 3)).copy(), np.eye(count, dtype=np.float32)


@given(
    kind=st.sampled_from([MixUp, CutMix, MixUpOrCutMix]),
    alpha=st.floats(0.05, 20),
    rate=st.floats(0, 1),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=150)
def test_labels_tell_exactly_what_the_image_holds(kind, alpha, rate, height, width, seed):
    images, targets = constant_images(12, height, width)
    before = images.copy()
    mixed, soft = kind(alpha, rate)(images, targets, np.random.default_rng(seed))
    np.testing.assert_array_equal(images, before)
    assert mixed.dtype == np.uint8
    assert soft.dtype == np.float32
    np.testing.assert_allclose(soft.sum(axis=1), 1.0, atol=1e-5)
    assert soft.min() >= 0
    # Each class has its own shade, so the mean shade is what the labels say it is.
    expected = soft @ (10 * np.arange(12))
    np.testing.assert_allclose(
        mixed.astype(float).mean(axis=(1, 2, 3)), expected, atol=1e-3 if kind is CutMix else 0.51
    )


def test_each_image_has_its_own_share():
    images, targets = constant_images(20, 8, 8)
    for mixing in (MixUp(1.0), CutMix(1.0), MixUpOrCutMix(1.0)):
        own = np.diag(mixing(images, targets, np.random.default_rng(0))[1])
        assert len(np.unique(np.round(own, 4))) > 8


def test_rate_is_the_share_of_mixed_images():
    images, targets = constant_images(20, 16, 16)
    for make in (MixUp, CutMix, MixUpOrCutMix):
        rng = np.random.default_rng(0)
        mixed = [np.diag(make(5.0, 0.3)(images, targets, rng)[1]) < 1 for _ in range(60)]
        # An image may draw itself as its partner.
        assert np.mean(mixed) == pytest.approx(0.3 * 19 / 20, abs=0.04)


def test_cutmix_cuts_a_rectangle():
    images, targets = constant_images(2, 30, 40)
    images[1] = 255
    for seed in range(30):
        pairing = CutMix().draw(2, 30, 40, np.random.default_rng(seed))
        if pairing.partner[0] == 1:
            break
    mixed, soft = CutMix()(images, targets, np.random.default_rng(seed))
    changed = mixed[0, ..., 0] == 255
    rows, columns = changed.any(axis=1), changed.any(axis=0)
    np.testing.assert_array_equal(changed, rows[:, None] & columns[None, :])
    assert soft[0, 1] == pytest.approx(changed.mean(), abs=1e-6)


def test_the_weighted_loss_is_kept():
    rng = np.random.default_rng(0)
    targets, weights = np.eye(5)[rng.integers(0, 5, 8)], rng.random(8)
    pairing = Pairing(rng.permutation(8), rng.random(8), None)
    soft, joint = mix_targets(targets, weights, pairing)
    log_probabilities = np.log(rng.dirichlet(np.ones(5), 8))

    def loss(labels: np.ndarray) -> np.ndarray:
        return -(labels * log_probabilities).sum(axis=1)

    expected = pairing.own_weight * weights * loss(targets)
    expected += (1 - pairing.own_weight) * weights[pairing.partner] * loss(targets[pairing.partner])
    np.testing.assert_allclose(joint * loss(soft), expected, rtol=1e-5)
    np.testing.assert_allclose(mix_targets(targets, np.zeros(8), pairing)[0].sum(axis=1), 1.0, rtol=1e-6)


def test_mistakes_are_told():
    with pytest.raises(RecipeError, match="alpha: expected a number above 0, got 0"):
        MixUp(0)
    with pytest.raises(RecipeError, match="rate"):
        CutMix(1.0, rate=2)
    images, targets = constant_images(4, 3, 3)
    with pytest.raises(DataError, match=r"targets as \(4, classes\), got \(3, 4\)"):
        MixUp()(images, targets[:3], np.random.default_rng(0))
