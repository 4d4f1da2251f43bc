"""The generator of synthetic cells: determinism, planted faults, balance, writing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bloodauto.data.dataset import COMPETITION_CLASSES, CellDataset, concatenate
from bloodauto.data.synthetic.generator import PlantedFaults, draw_cartoon_overlay, synthesize
from bloodauto.errors import DataError


@pytest.fixture(scope="module")
def forty() -> CellDataset:
    return synthesize(40, seed=1)


def _identical_pairs(images: np.ndarray) -> int:
    """Images that are a byte-identical copy of an earlier one."""
    return len(images) - len({image.tobytes() for image in images})


def test_same_seed_same_bytes(forty: CellDataset) -> None:
    assert synthesize(40, seed=1).digest() == forty.digest()


def test_another_seed_draws_other_cells(forty: CellDataset) -> None:
    other = synthesize(40, seed=2)
    assert not any((a == b).all() for a, b in zip(forty.images, other.images, strict=True))


def test_result_is_a_valid_set_with_every_class_and_its_site(forty: CellDataset) -> None:
    assert forty.images.shape == (40, 96, 96, 3)
    assert forty.images.dtype == np.uint8
    assert forty.labels.dtype == np.int64
    assert forty.class_names == COMPETITION_CLASSES
    assert set(forty.labels.tolist()) == set(range(8))
    assert len(set(forty.names.tolist())) == 40
    assert set(forty.sites.tolist()) == {"lab_a"}
    # A bright field with dark nuclei in it, not a washed-out or saturated one.
    assert np.percentile(forty.images, 1) < 80
    assert np.percentile(forty.images, 90) > 220
    assert _identical_pairs(forty.images) == 0


@settings(max_examples=15)
@given(
    short=st.integers(1, 4),
    more=st.integers(1, 3),
    first=st.integers(0, 10**6),
    seed=st.integers(0, 2**31),
    site=st.sampled_from(["lab_a", "lab_b", "lab_c"]),
)
def test_a_longer_set_begins_with_the_shorter_one(short: int, more: int, first: int, seed: int, site: str) -> None:
    longer = synthesize(short + more, site=site, seed=seed, first_index=first, image_size_px=32)
    start = synthesize(short, site=site, seed=seed, first_index=first, image_size_px=32)
    rest = synthesize(more, site=site, seed=seed, first_index=first + short, image_size_px=32)
    joined = concatenate([start, rest])
    assert joined.digest() == longer.digest()


@pytest.mark.parametrize("size", [16, 32, 224])
def test_other_sizes_show_the_same_cell(size: int) -> None:
    reference = synthesize(8, seed=3, image_size_px=96)
    resized = synthesize(8, seed=3, image_size_px=size)
    assert resized.images.shape == (8, size, size, 3)
    assert resized.labels.tolist() == reference.labels.tolist()
    # The same stain and light whatever the size. Textures are sampled anew, so that pixels may differ.
    difference = resized.images.mean((1, 2)) - reference.images.mean((1, 2))
    assert np.abs(difference).max() < 12


def test_one_image() -> None:
    assert len(synthesize(1)) == 1


def test_default_balance_is_that_of_pbc_and_weights_are_met() -> None:
    labels = synthesize(400, image_size_px=16).labels
    expected = 400 * np.array([1218, 3117, 1551, 2895, 1214, 1420, 3329, 2348]) / 17092
    assert np.abs(np.bincount(labels, minlength=8) - expected).max() <= 3
    two = synthesize(60, image_size_px=16, class_weights=[1, 0, 0, 0, 0, 0, 0, 3]).labels
    assert set(two.tolist()) == {0, 7}
    assert abs(int((two == 7).sum()) - 45) <= 1


def test_duplicates_are_exact_copies_and_some_contradict() -> None:
    faults = PlantedFaults(duplicate_fraction=0.2, contradicting_fraction=0.25)
    dataset = synthesize(60, seed=4, image_size_px=32, faults=faults)
    assert _identical_pairs(dataset.images) == 12
    first_label = {
        image.tobytes(): label for image, label in zip(dataset.images[:48], dataset.labels[:48], strict=True)
    }
    contradictions = sum(
        first_label[image.tobytes()] != label
        for image, label in zip(dataset.images[48:], dataset.labels[48:], strict=True)
    )
    assert contradictions == 3
    plain = synthesize(48, seed=4, image_size_px=32)
    assert (dataset.images[:48] == plain.images).all(), "planting changed the drawn images"


def test_outliers_are_copies_over_all_labels_with_colours_no_stain_has() -> None:
    dataset = synthesize(40, seed=5, faults=PlantedFaults(outlier_copies=(9, 3)))
    first, second = dataset.images[28:37], dataset.images[37:40]
    assert (first == first[0]).all()
    assert (second == second[0]).all()
    assert (first[0] != second[0]).any()
    assert set(dataset.labels[28:37].tolist()) == set(range(8))
    saturated = (dataset.images.max(3).astype(int) - dataset.images.min(3) > 150).mean((1, 2))
    assert saturated[:28].max() < 0.01 < saturated[28:].min()


def test_overlay_leaves_its_input_alone(forty: CellDataset) -> None:
    before = forty.images[0].copy()
    drawn = draw_cartoon_overlay(np.random.default_rng(0), forty.images[0])
    assert (forty.images[0] == before).all()
    assert (drawn != before).any(2).mean() > 0.1


def test_label_noise_changes_labels_at_the_given_rate_and_no_image() -> None:
    clean = synthesize(300, seed=6, image_size_px=16)
    noisy = synthesize(300, seed=6, image_size_px=16, faults=PlantedFaults(label_noise_fraction=0.2))
    assert (clean.images == noisy.images).all()
    assert 0.13 < (clean.labels != noisy.labels).mean() < 0.27
    all_wrong = synthesize(20, seed=6, image_size_px=16, faults=PlantedFaults(label_noise_fraction=1.0))
    assert (all_wrong.labels != clean.labels[:20]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"site": "lab_aa"}, "did you mean 'lab_a'"),
        ({"site": "zzz"}, "valid: lab_a, lab_b, lab_c"),
        ({"num_images": 0}, "num_images"),
        ({"seed": -1}, "seed"),
        ({"image_size_px": 8}, "image_size_px"),
        ({"first_index": -1}, "first_index"),
        ({"class_weights": [1, 2]}, "8 finite numbers"),
        ({"class_weights": [1, 2, 3, 4, 5, 6, 7, -1]}, "8 finite numbers"),
        ({"class_weights": [0] * 8}, "above 0"),
    ],
)
def test_bad_arguments_say_what_was_expected(arguments: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        synthesize(**{"num_images": 10, **arguments})


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        ({"duplicate_fraction": 1.5}, "duplicate_fraction"),
        ({"duplicate_fraction": float("nan")}, "duplicate_fraction"),
        ({"duplicate_fraction": 1.0}, "leave nothing to draw"),
        ({"label_noise_fraction": -0.1}, "label_noise_fraction"),
        ({"contradicting_fraction": 2}, "contradicting_fraction"),
        ({"outlier_copies": (0,)}, "outlier_copies"),
        ({"outlier_copies": (6, 4)}, "leave nothing to draw"),
    ],
)
def test_bad_faults_say_what_was_expected(faults: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        synthesize(10, faults=PlantedFaults(**faults))
