"""What single operations do, against plain reference computations."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from bloodauto.transforms import OPERATIONS, colour, geometry, kernels
from bloodauto.transforms import lookup_tables as tables
from bloodauto.transforms.engine import apply_stages, fuse
from bloodauto.transforms.steps import Border, Step

NOTHING = np.zeros((1, 6))
MIDDLE = np.full((1, 6), 0.5)


def run(
    name: str, strength: float, image: np.ndarray, extra: np.ndarray = MIDDLE, border: str = "reflect"
) -> np.ndarray:
    """Applies an operation with a strength in its unit."""
    operation = OPERATIONS[name]
    # The spread turns magnitude and a uniform number into the strength; one that is drawn evenly is met at its end.
    magnitude = abs(strength) / operation.limit
    uniform = 0.0 if strength < 0 else 1.0  # SIGNED, SYMMETRIC and UNIFORM all give the limit itself for 1
    uniforms = np.concatenate([[[uniform]], extra], axis=1)
    payload = operation.prepare(np.array([magnitude]), uniforms, *image.shape[:2], Border(border))[0]
    out = np.empty_like(image)
    apply_stages(image, out, np.empty_like(image), fuse([Step(name, operation.kind, payload)]))
    return out


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(4).integers(0, 256, (31, 23, 3), dtype=np.uint8)


def levels(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def test_pointwise(image):
    wide = image.astype(float)
    means = wide.mean(axis=(0, 1))
    expected = {
        ("brightness", 0.2): wide + 51,
        ("brightness", -0.4): wide - 102,
        ("contrast", 0.7): (wide - means) * 1.7 + means,
        ("contrast", -0.7): (wide - means) * 0.3 + means,
        ("gamma", 1.0): 255 * (wide / 255) ** 2,
        ("gamma", -1.0): 255 * (wide / 255) ** 0.5,
        ("exposure", 0.5): wide * np.sqrt(2),
        ("invert", 1.0): 255 - wide,
        ("posterize", 3.0): (image // 8 * 8).astype(float),
    }
    for (name, strength), values in expected.items():
        np.testing.assert_allclose(run(name, strength, image).astype(int), levels(values), atol=1, err_msg=name)
    low, high = image.min(axis=(0, 1)), image.max(axis=(0, 1))
    stretched = (wide - low) * (255.0 / (high - low))
    np.testing.assert_allclose(run("auto_contrast", 1.0, image).astype(int), levels(stretched), atol=1)


def test_solarize_inverts_only_what_reaches_the_threshold():
    ramp = np.tile(np.arange(256, dtype=np.uint8)[None, :, None], (2, 1, 3))
    np.testing.assert_array_equal(run("solarize", 0.0, ramp), ramp)
    raised = np.minimum(ramp.astype(float) + 33, 255)
    np.testing.assert_array_equal(run("solarize", 0.3, ramp), levels(np.where(raised >= 178.5, 255 - raised, raised)))


def test_white_balance_gives_each_channel_its_gain(image):
    extra = np.array([[0.0, 0.5, 1.0, 0.0, 0.0, 0.0]])
    expected = levels(image * np.array([2**-0.5, 1.0, 2**0.5]))
    np.testing.assert_allclose(run("white_balance", 0.5, image, extra).astype(int), expected, atol=1)


def test_equalize_makes_the_levels_even():
    skewed = (255 * np.random.default_rng(0).random((100, 100, 3)) ** 4).astype(np.uint8)
    counts = np.bincount(run("equalize", 1.0, skewed)[..., 0].ravel() // 64, minlength=4)
    assert counts.min() > 0.7 * counts.max()
    before = np.bincount(skewed[..., 0].ravel() // 64, minlength=4)
    assert before.min() < 0.2 * before.max()


def test_histograms_through_a_table_are_those_of_the_changed_image(image):
    for table in (
        tables.gamma(np.array([1.0]), NOTHING)[0],
        np.random.default_rng(0).integers(0, 256, (256, 3), np.uint8),
    ):
        through = tables.Statistics(image)
        through.table = table
        changed = tables.Statistics(cv2.LUT(image, table if table.ndim == 1 else table[None]))
        np.testing.assert_array_equal(through.histograms(), changed.histograms())


def test_ramps_and_their_tables_are_the_same_to_the_bit(image):
    rng = np.random.default_rng(1)
    for _ in range(100):
        ramp = np.zeros((3, 4))
        ramp[[0, 1, 2], [0, 1, 2]] = rng.choice([rng.uniform(-1, 3), 0.5, 1.5])
        ramp[:, 3] = rng.choice([rng.uniform(-300, 300), 0.5, -20.5])
        table = tables.as_table(ramp)
        np.testing.assert_array_equal(cv2.transform(image, ramp), cv2.LUT(image, table[None]))


def test_colour(image):
    grey = image @ colour.GREY_WEIGHTS
    np.testing.assert_allclose(run("color", 1.0, image).astype(int), levels(grey)[..., None].repeat(3, 2), atol=1)
    half = 0.5 * image + 0.5 * grey[..., None]
    np.testing.assert_allclose(run("color", 0.5, image).astype(int), levels(half), atol=1)
    np.testing.assert_allclose(run("saturation", -0.5, image).astype(int), levels(half), atol=1)
    more = 1.5 * image - 0.5 * grey[..., None]
    np.testing.assert_allclose(run("saturation", 0.5, image).astype(int), levels(more), atol=1)


def test_hue_keeps_greys_and_lightness_and_moves_colours():
    greys = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    np.testing.assert_allclose(run("hue", 40.0, greys).astype(int), greys, atol=1)
    dull = np.array([[[150, 120, 110]]], np.uint8)
    turned = run("hue", 30.0, dull)
    weights = np.array([0.299, 0.587, 0.114])
    assert abs(float((turned.astype(float) @ weights - dull @ weights)[0, 0])) < 1
    there_and_back = run("hue", -30.0, turned)
    np.testing.assert_allclose(there_and_back.astype(int), dull, atol=2)
    assert np.abs(turned.astype(int) - dull).max() > 8


def test_stain_jitter_scales_the_density_of_a_stain():
    """All stains taken half as strongly again: every optical density is half as much again."""
    image = np.random.default_rng(0).integers(60, 256, (9, 9, 3), dtype=np.uint8)
    extra = np.array([[1.0, 1.0, 1.0, 0.5, 0.5, 0.5]])
    density = -np.log((image + 1.0) / 256.0)
    expected = levels(256 * np.exp(-1.5 * density) - 1)
    np.testing.assert_allclose(run("stain_jitter", 0.5, image, extra).astype(int), expected, atol=1)
    white = np.full((3, 3, 3), 255, np.uint8)
    np.testing.assert_array_equal(run("stain_jitter", 0.5, white, extra), white)


def test_stain_jitter_of_eosin_leaves_pure_methylene_blue_alone():
    blue = np.array([0.834750233, 0.513556283, 0.196330403])
    pixel = levels(256 * np.exp(-1.2 * blue) - 1).reshape(1, 1, 3)
    extra = np.array([[0.5, 1.0, 0.5, 0.5, 0.5, 0.5]])
    np.testing.assert_allclose(run("stain_jitter", 0.5, pixel, extra).astype(int), pixel, atol=1)


def test_geometry_moves_pixels_where_it_says():
    image = np.zeros((20, 30, 3), np.uint8)
    image[5, 8] = 255

    def brightest(result: np.ndarray) -> tuple[int, int]:
        return tuple(int(v) for v in np.unravel_index(result[..., 0].argmax(), result.shape[:2]))

    assert brightest(run("translate_x", 0.2, image, border="edge")) == (5, 14)
    assert brightest(run("translate_x", -0.2, image, border="edge")) == (5, 2)
    assert brightest(run("translate_y", 0.5, image, border="edge")) == (15, 8)
    assert brightest(run("translate_y", -0.2, image, border="edge")) == (1, 8)
    assert brightest(run("translate", 0.2, image, NOTHING, border="edge")) == (5, 14)
    # x is read from x + 0.4 y: what stands at x = 8 in row 5 is seen at x = 6.
    assert brightest(run("shear_x", 0.4, image, border="edge")) == (5, 6)
    assert brightest(run("shear_x", -0.4, image, border="edge")) == (5, 10)
    assert brightest(run("shear_y", 0.5, image, border="edge")) == (1, 8)
    assert brightest(run("flip_horizontal", 1.0, image)) == (5, 21)
    assert brightest(run("flip_vertical", 1.0, image)) == (14, 8)


def test_rotation_is_counter_clockwise_and_quarter_turns_agree():
    square = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    turned = run("rotate_any", 90.0, square, border="edge")
    np.testing.assert_array_equal(turned, np.rot90(square))
    quarters = {run("quarter_turn", 1.0, square, np.full((1, 6), u)).tobytes() for u in (0.1, 0.5, 0.9)}
    assert quarters == {np.rot90(square, turns).copy().tobytes() for turns in (1, 2, 3)}


def test_zoom_and_stretch_change_sizes_as_declared():
    image = np.zeros((61, 61, 3), np.uint8)
    cv2.circle(image, (30, 30), 10, (255, 255, 255), -1, cv2.LINE_AA)
    area = image.sum()
    assert run("zoom", 0.75, image).sum() / area == pytest.approx(2**1.5, rel=0.05)
    assert run("zoom", -0.75, image).sum() / area == pytest.approx(2**-1.5, rel=0.1)
    stretched = run("stretch", 0.5, image, NOTHING)
    assert stretched.sum() / area == pytest.approx(1.0, rel=0.03)
    columns, rows = (np.count_nonzero(stretched[..., 0].max(axis=axis) > 127) for axis in (0, 1))
    assert columns / rows == pytest.approx(2**0.5, rel=0.12)


def test_borders():
    image = np.arange(4, dtype=np.uint8).reshape(1, 4, 1).repeat(3, 2) * 10 + 10
    rows = {
        mode: run("translate_x", 0.5, image, border=mode)[0, :, 0].tolist()
        for mode in ("reflect", "reflect_101", "edge")
    }
    assert rows == {"reflect": [20, 10, 10, 20], "reflect_101": [30, 20, 10, 20], "edge": [10, 10, 10, 20]}


def dot(size: int = 41) -> np.ndarray:
    image = np.zeros((size, size, 3), np.uint8)
    image[size // 2, size // 2] = 255
    return image


def spread_pixels(image: np.ndarray) -> tuple[float, float]:
    weights = image[..., 0].astype(float)
    ys, xs = np.mgrid[: image.shape[0], : image.shape[1]] - image.shape[0] // 2
    return float(np.sqrt((weights * xs**2).sum() / weights.sum())), float(
        np.sqrt((weights * ys**2).sum() / weights.sum())
    )


def test_blurs_spread_a_dot_by_what_they_declare():
    block = cv2.dilate(dot(81), np.ones((5, 5)))
    own = spread_pixels(block)[0]
    x, y = spread_pixels(run("gaussian_blur", 2.5, block))
    assert np.sqrt(x**2 - own**2) == pytest.approx(0.025 * 81, rel=0.12)
    assert y == pytest.approx(x, rel=0.02)
    x, y = spread_pixels(run("defocus_blur", 3.0, block))
    assert np.sqrt(x**2 - own**2) == pytest.approx(0.03 * 81 / 2, rel=0.15)  # a disc's deviation is half its radius
    x, y = spread_pixels(run("motion_blur", 8.0, block, NOTHING))
    assert np.sqrt(x**2 - own**2) == pytest.approx(0.08 * 81 / np.sqrt(12), rel=0.15)
    assert y == pytest.approx(own, rel=0.05)


def test_kernels_sum_to_one_and_grow_out_of_nothing():
    for size in (0.06, 0.2, 0.5, 0.9, 1.7, 4.2):
        for kernel in (
            kernels.gaussian_kernel(size),
            kernels.disc_kernel(size),
            kernels.streak_kernel(size, 0.7),
        ):
            assert kernel.sum() == pytest.approx(1.0, abs=1e-5)
            assert kernel.min() >= 0
            assert size > 0.1 or kernel.max() > 0.8


def test_sharpness_goes_both_ways(textured_image):
    def detail(image: np.ndarray) -> float:
        return float(np.abs(cv2.Laplacian(image, cv2.CV_32F)).mean())

    results = sorted(detail(run("sharpness", strength, textured_image)) for strength in (0.6, -0.6))
    assert results[0] < 0.7 * detail(textured_image)
    assert results[1] > 1.3 * detail(textured_image)


@pytest.mark.parametrize("shape", [(64, 64, 3), (700, 800, 3)])
def test_noise_has_the_declared_deviation(shape):
    grey = np.full(shape, 100, np.uint8)
    difference = run("noise", 20.0, grey).astype(float) - 100
    assert difference.std() == pytest.approx(20.0, rel=0.04)
    assert abs(difference.mean()) < 1
    shot = run("shot_noise", 20.0, grey).astype(float) - 100
    assert shot.std() == pytest.approx(20.0 * np.sqrt(100 / 255), rel=0.04)


def test_jpeg_loses_more_at_lower_quality(textured_image):
    losses = [np.abs(run("jpeg", loss, textured_image).astype(int) - textured_image).mean() for loss in (5, 45, 90)]
    assert 0 < losses[0] < losses[1] < losses[2]
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 200
    np.testing.assert_allclose(run("jpeg", 20, red).astype(int), red, atol=8)


def test_cutout_and_grid_mask_paint_the_declared_share(smooth_image):
    square = smooth_image[:60, :60]
    changed = (run("cutout", 0.5, square) != square).any(axis=2)
    assert changed.mean() == pytest.approx(0.25, abs=0.02)
    ys, xs = np.nonzero(changed)
    assert (ys.min(), ys.max(), xs.min(), xs.max()) == pytest.approx((15, 44, 15, 44), abs=1)
    painted = run("cutout", 0.5, square)[30, 30]
    np.testing.assert_allclose(painted.astype(float), square.mean(axis=(0, 1)), atol=1)
    assert (run("grid_mask", 0.6, square) != square).any(axis=2).mean() == pytest.approx(0.36, abs=0.08)


def test_symmetries_are_a_group_of_eight():
    matrices = geometry.symmetry(np.arange(8), 5, 5)
    products = {np.round(a @ b, 9).tobytes() for a in matrices for b in matrices}
    assert len({matrix.tobytes() for matrix in np.round(matrices, 9)}) == 8
    assert len(products) <= 16  # equal but for the sign of zeros
