"""MixUp and CutMix: images and labels are joined alike."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bloodauto.config.recipe import MixingSettings
from bloodauto.errors import DataError
from bloodauto.transforms import PairMixing
from bloodauto.transforms.mixing import Pairing, mix_targets
from bloodauto.types import Images, Scores, Targets

Name = Literal["mixup", "cutmix", "both"]
NAMES: tuple[Name, ...] = ("mixup", "cutmix", "both")


def mixing(name: Name, alpha: float = 1.0, rate: float = 1.0) -> PairMixing:
    return PairMixing(MixingSettings(name=name, alpha=alpha, rate=rate))


def constant_images(count: int, height: int, width: int) -> tuple[Images, Targets]:
    """Image i has the level 10 i everywhere and the class i."""
    shades = (10 * np.arange(count, dtype=np.uint8))[:, None, None, None]
    return np.broadcast_to(shades, (count, height, width, 3)).copy(), np.eye(count, dtype=np.float32)


@given(
    name=st.sampled_from(NAMES),
    alpha=st.floats(0.05, 20),
    rate=st.floats(0, 1),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=150)
def test_labels_are_exactly_what_the_image_holds(
    name: Name, alpha: float, rate: float, height: int, width: int, seed: int
) -> None:
    images, targets = constant_images(12, height, width)
    original = images.copy()
    mixed, soft = mixing(name, alpha, rate)(images, targets, np.random.default_rng(seed))
    np.testing.assert_array_equal(images, original)
    assert mixed.dtype == np.uint8
    assert soft.dtype == np.float32
    np.testing.assert_allclose(soft.sum(axis=1), 1.0, atol=1e-5)
    assert soft.min() >= 0
    # Each class has its own shade, so the mean shade is what the labels say.
    expected = soft @ (10 * np.arange(12))
    tolerance = 1e-3 if name == "cutmix" else 0.51
    np.testing.assert_allclose(mixed.astype(float).mean(axis=(1, 2, 3)), expected, atol=tolerance)


@pytest.mark.parametrize("name", NAMES)
def test_each_image_draws_its_weight(name: Name) -> None:
    images, targets = constant_images(20, 8, 8)
    own_weights = np.diag(mixing(name)(images, targets, np.random.default_rng(0))[1])
    assert len(np.unique(np.round(own_weights, 4))) > 8


@pytest.mark.parametrize("name", NAMES)
def test_rate_is_the_fraction_of_mixed_images(name: Name) -> None:
    images, targets = constant_images(20, 16, 16)
    rng = np.random.default_rng(0)
    mixed = [np.diag(mixing(name, 5.0, 0.3)(images, targets, rng)[1]) < 1 for _ in range(60)]
    # An image may draw itself as its partner.
    assert np.mean(mixed) == pytest.approx(0.3 * 19 / 20, abs=0.04)


def test_cutmix_cuts_a_rectangle() -> None:
    images, targets = constant_images(2, 30, 40)
    images[1] = 255
    for seed in range(30):
        pairing = mixing("cutmix").draw(2, 30, 40, np.random.default_rng(seed))
        if pairing.partner[0] == 1:
            break
    mixed, soft = mixing("cutmix")(images, targets, np.random.default_rng(seed))
    changed = mixed[0, ..., 0] == 255
    rows, columns = changed.any(axis=1), changed.any(axis=0)
    np.testing.assert_array_equal(changed, rows[:, None] & columns[None, :])
    assert soft[0, 1] == pytest.approx(changed.mean(), abs=1e-6)


def test_the_weighted_loss_is_kept() -> None:
    rng = np.random.default_rng(0)
    targets, weights = np.eye(5, dtype=np.float32)[rng.integers(0, 5, 8)], rng.random(8)
    pairing = Pairing(rng.permutation(8), rng.random(8), None)
    soft, joint = mix_targets(targets, weights, pairing)
    log_probabilities = np.log(rng.dirichlet(np.ones(5), 8))

    def loss(labels: Targets) -> Scores:
        return -(labels * log_probabilities).sum(axis=1)

    expected = pairing.own_weight * weights * loss(targets)
    expected += (1 - pairing.own_weight) * weights[pairing.partner] * loss(targets[pairing.partner])
    np.testing.assert_allclose(joint * loss(soft), expected, rtol=1e-5)
    np.testing.assert_allclose(mix_targets(targets, np.zeros(8), pairing)[0].sum(axis=1), 1.0, rtol=1e-6)


def test_other_targets_are_refused() -> None:
    images, targets = constant_images(4, 3, 3)
    with pytest.raises(DataError, match=r"targets as \(4, classes\), got \(3, 4\)"):
        mixing("mixup")(images, targets[:3], np.random.default_rng(0))
