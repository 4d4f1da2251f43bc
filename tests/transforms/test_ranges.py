"""Operations drawn from an interval: a value means what its unit says."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from bloodauto.config.recipe import OPERATION_SET_NAMES, OPERATION_SPANS
from bloodauto.errors import RecipeError
from bloodauto.transforms import OPERATION_SETS, OPERATIONS, Apply, UniformRange
from bloodauto.transforms.operations import StrengthSampling

SPANS = {name: span for name, span in OPERATION_SPANS.items() if span is not None}


def result(operation: str, value: float, image: np.ndarray) -> np.ndarray:
    return UniformRange(operation, value, value)(image[None], np.random.default_rng(0))[0].astype(np.float64)


def test_recipes_name_the_engines_operations_and_sets():
    assert list(OPERATION_SPANS) == list(OPERATIONS)
    assert tuple(OPERATION_SETS) == OPERATION_SET_NAMES
    assert {name for name, span in OPERATION_SPANS.items() if span is None} == {
        name for name, operation in OPERATIONS.items() if operation.strength_sampling is StrengthSampling.ALWAYS
    }


#: Values that change nothing, by unit.
NEUTRAL = {"factor": 1.0, "quality": 100.0}


@pytest.mark.parametrize("name", SPANS)
def test_the_neutral_value_changes_nothing_and_the_ends_stay_images(name, textured_image):
    span = SPANS[name]
    np.testing.assert_array_equal(result(name, NEUTRAL.get(span.unit, 0.0), textured_image), textured_image)
    for end in (span.lowest, span.highest):
        for image in (textured_image, textured_image[:1, :1], textured_image[:3, :20]):
            changed = UniformRange(name, end, end)(image[None], np.random.default_rng(0))
            assert changed.dtype == np.uint8
            assert changed.shape == (1, *image.shape)


def test_values_are_in_their_units(smooth_image):
    image = smooth_image[:, :64]
    np.testing.assert_array_equal(result("brightness", 0.2, image // 2), image // 2 + 51)
    np.testing.assert_array_equal(result("rotate", 90, image), np.rot90(image))
    np.testing.assert_array_equal(result("translate_x", 0.25, image)[:, 16:], image[:, :48])
    np.testing.assert_array_equal(result("translate_y", -0.5, image)[:32], image[32:])
    np.testing.assert_allclose(result("shear_x", 0.5, image)[0], image[0], atol=1)
    means = cv2.mean(image)[:3]
    assert np.abs(result("contrast", 0.0, image) - means).max() <= 1
    np.testing.assert_allclose(result("contrast", 0.5, image), (image + np.array(means)) / 2, atol=1)
    grey = result("saturation", 0.0, image)
    assert np.ptp(grey, axis=2).max() <= 1
    np.testing.assert_array_equal(grey, result("color", 1.0, image))
    np.testing.assert_array_equal(result("exposure", 1.0, image // 2), image // 2 * 2)
    np.testing.assert_array_equal(result("posterize", 4.0, image), image // 16 * 16)


def test_a_zoom_of_two_doubles_lengths():
    image = np.zeros((65, 65, 3), np.uint8)
    image[24:41, 24:41] = 200  # 17 pixels a side, about the middle
    for factor in (2.0, 0.5):
        zoomed = UniformRange("zoom", factor, factor, border=(0, 0, 0))(image[None], np.random.default_rng(0))[0]
        assert (zoomed[32, :, 0] > 100).sum() == pytest.approx(17 * factor, abs=1)


def test_noise_and_quality_are_in_levels_and_jpegs_own_scale(smooth_image):
    grey = np.full((200, 200, 3), 128, np.uint8)
    assert result("noise", 12.0, grey).std() == pytest.approx(12.0, rel=0.02)
    compressed = cv2.imdecode(
        cv2.imencode(".jpg", smooth_image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 30])[1], cv2.IMREAD_COLOR
    )
    np.testing.assert_array_equal(result("jpeg", 30.0, smooth_image), compressed[..., ::-1])


def test_holes_have_the_share_of_the_side_that_was_asked_for():
    image = np.zeros((100, 100, 3), np.uint8)
    image[:50] = 250
    sides = []
    for seed in range(40):
        changed = (UniformRange("cutout", 0.3, 0.3)(image[None], np.random.default_rng(seed))[0] != image).any(axis=2)
        sides.append(max(changed.any(axis=0).sum(), changed.any(axis=1).sum()))
    assert max(sides) == 30
    holes = UniformRange("grid_mask", 0.5, 0.5)(np.repeat(image[None], 40, axis=0), np.random.default_rng(0))
    assert (holes != image).any(axis=3).mean() == pytest.approx(0.25, abs=0.03)


def test_values_are_drawn_evenly_from_the_interval_for_each_image():
    grey = np.full((3000, 1, 1, 3), 100, np.uint8)
    added = UniformRange("brightness", 0.1, 0.3)(grey, np.random.default_rng(0))[:, 0, 0, 0] / 255 - 100 / 255
    assert added.min() == pytest.approx(0.1, abs=0.003)
    assert added.max() == pytest.approx(0.3, abs=0.003)
    assert added.mean() == pytest.approx(0.2, abs=0.003)
    assert added.std() == pytest.approx(0.2 / np.sqrt(12), rel=0.05)
    some = UniformRange("brightness", 0.1, 0.3, rate=0.25)(grey, np.random.default_rng(0))
    assert (some != grey).any(axis=(1, 2, 3)).mean() == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("name", ["brightness", "contrast", "translate_x", "hue", "zoom"])
def test_a_magnitude_is_the_same_as_its_interval(name, smooth_image):
    """Symmetric operations: magnitude m draws from -m to m times the limit."""
    limit = 0.4 * OPERATIONS[name].limit
    low, high = {
        "contrast": (1 - limit, 1 + limit),
        "zoom": (2**-limit, 2**limit),
    }.get(name, (-limit, limit))
    images = np.repeat(smooth_image[None, :24, :24], 1500, axis=0)

    def effects(policy):
        return np.sort(np.abs(policy(images, np.random.default_rng(1)).astype(float) - images).mean(axis=(1, 2, 3)))

    one, other = effects(Apply(name, 0.4)), effects(UniformRange(name, low, high))
    # A zoom's factor is drawn evenly, its magnitude's octaves are: not the same distribution, but the same ends.
    if name == "zoom":
        assert one[-1] == pytest.approx(other[-1], rel=0.1)
    else:
        np.testing.assert_allclose(np.quantile(one, [0.25, 0.5, 0.75]), np.quantile(other, [0.25, 0.5, 0.75]), rtol=0.1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UniformRange("rotte", 0, 1), "got 'rotte'"),
        (lambda: UniformRange("flip_vertical", 0, 1), "single effect"),
        (lambda: UniformRange("rotate", 2, 1), "low <= high"),
        (lambda: UniformRange("rotate", 0, float("inf")), "low <= high"),
        (lambda: UniformRange("rotate", 0, 1, rate=2.0), "rate"),
    ],
)
def test_mistakes_are_told(make, message):
    with pytest.raises(RecipeError, match=message):
        make()
