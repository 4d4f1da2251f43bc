"""The fused stages as TensorFlow graph operations, for many images at once, on whatever device TensorFlow chooses.

Pixels are float32 but hold whole numbers 0..255: every stage rounds (half to even) and clips as OpenCV does, so what
OpenCV makes of the same stages is at most a level away. Kernels for float32 exist on every device; those for uint8 do
not. Shapes below: m images of one group, b images of the batch, h and w pixels.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from bloodauto.transforms.lookup_tables import LEVELS

#: How a point-wise step gets its table, as numbers in a tensor.
GIVEN, CONTRAST, AUTO_CONTRAST, EQUALIZE = range(4)

_FLOAT, _INT = tf.float32, tf.int32
_IMAGES = tf.TensorSpec((None, None, None, 3), _FLOAT)
_ROWS = tf.TensorSpec((None,), _INT)


def _rounded(values: Any) -> Any:
    return tf.clip_by_value(tf.round(values), 0.0, 255.0)


def _replace(images: Any, rows: Any, group: Any) -> Any:
    return tf.tensor_scatter_nd_update(images, rows[:, None], group)


def make_warp(fill_mode: str) -> Any:
    """A function (images (b, h, w, 3), rows (m,), transforms (m, 8), colour (3,)) -> images for one border.

    Args:
        fill_mode: as TensorFlow names it: REFLECT, NEAREST or CONSTANT.
    """

    @tf.function(
        input_signature=[_IMAGES, _ROWS, tf.TensorSpec((None, 8), _FLOAT), tf.TensorSpec((3,), _FLOAT)],
        jit_compile=False,
    )
    def warp(images: Any, rows: Any, transforms: Any, colour: Any) -> Any:
        # The operation knows one fill value for all channels: move the colour to zero and back.
        group = tf.raw_ops.ImageProjectiveTransformV3(
            images=tf.gather(images, rows) - colour,
            transforms=transforms,
            output_shape=tf.shape(images)[1:3],
            fill_value=0.0,
            interpolation="BILINEAR",
            fill_mode=fill_mode,
        )
        return _replace(images, rows, _rounded(group + colour))

    return warp


@tf.function(input_signature=[_IMAGES, _ROWS, tf.TensorSpec((None, 3, 4), _FLOAT)], jit_compile=False)
def mix_levels(images: Any, rows: Any, matrices: Any) -> Any:
    """Mixes the channels of m images by a matrix each."""
    mixed = tf.einsum("mhwc,mdc->mhwd", tf.gather(images, rows), matrices[:, :, :3])
    return _replace(images, rows, _rounded(mixed + matrices[:, None, None, :, 3]))


@tf.function(input_signature=[_IMAGES, _ROWS, tf.TensorSpec((None, 3, 4), _FLOAT)], jit_compile=False)
def mix_densities(images: Any, rows: Any, matrices: Any) -> Any:
    """Mixes the optical densities of m images by a matrix each; no density is below zero."""
    densities = -tf.math.log((tf.gather(images, rows) + 1.0) / 256.0)
    mixed = tf.einsum("mhwc,mdc->mhwd", densities, matrices[:, :, :3]) + matrices[:, None, None, :, 3]
    return _replace(images, rows, _rounded(256.0 * tf.exp(-tf.maximum(mixed, 0.0)) - 1.0))


@tf.function(input_signature=[_IMAGES, _ROWS, tf.TensorSpec((None, None, None), _FLOAT)], jit_compile=False)
def correlate(images: Any, rows: Any, kernels: Any) -> Any:
    """Filters m images with a kernel each, (m, k, k) with odd k; the edge pixel repeats in the reflection."""
    group = tf.gather(images, rows)
    shape = tf.shape(group)
    reach = tf.shape(kernels)[1] // 2
    padded = tf.pad(group, [[0, 0], [reach, reach], [reach, reach], [0, 0]], mode="SYMMETRIC")
    # Image and channel become one axis, so a depth-wise convolution gives every image its own kernel.
    channels = tf.transpose(padded, (1, 2, 0, 3))
    channels = tf.reshape(channels, (1, shape[1] + 2 * reach, shape[2] + 2 * reach, 3 * shape[0]))
    filters = tf.repeat(tf.transpose(kernels, (1, 2, 0)), 3, axis=2)[..., None]
    result = tf.nn.depthwise_conv2d(channels, filters, strides=(1, 1, 1, 1), padding="VALID")
    result = tf.transpose(tf.reshape(result, (shape[1], shape[2], shape[0], 3)), (2, 0, 1, 3))
    return _replace(images, rows, _rounded(result))


@tf.function(
    input_signature=[_IMAGES, _ROWS, tf.TensorSpec((None, 4), _INT)],
    jit_compile=False,
)
def paint_rectangles(images: Any, rows: Any, edges: Any) -> Any:
    """Paints a rectangle (top, bottom, left, right) of each of m images in its mean colour."""
    group = tf.gather(images, rows)
    ys, xs = tf.range(tf.shape(images)[1])[None, :, None], tf.range(tf.shape(images)[2])[None, None, :]
    top, bottom, left, right = (edges[:, index, None, None] for index in range(4))
    inside = (ys >= top) & (ys < bottom) & (xs >= left) & (xs < right)
    mean = tf.round(tf.reduce_mean(group, axis=(1, 2), keepdims=True))
    return _replace(images, rows, tf.where(inside[..., None], mean, group))


def _look_up(group: Any, tables: Any) -> Any:
    """Levels (m, h, w, 3) through tables (m, 256, 3)."""
    count = tf.shape(group)[0]
    base = 768 * tf.range(count)[:, None, None, None] + tf.range(3)
    return tf.gather(tf.reshape(tables, (-1,)), base + 3 * tf.cast(group, _INT))


@tf.function(input_signature=[_IMAGES, _ROWS, tf.TensorSpec((None, 256, 3), _FLOAT)], jit_compile=False)
def look_up(images: Any, rows: Any, tables: Any) -> Any:
    """Looks the levels of m images up in a table each."""
    return _replace(images, rows, _look_up(tf.gather(images, rows), tables))


def _histograms(levels: Any, weights: Any) -> Any:
    """Counts, float32 (m, 256, 3), of levels (m, p, 3) weighed by (m, p, 3)."""
    count = tf.shape(levels)[0]
    index = 768 * tf.range(count)[:, None, None] + 3 * tf.cast(levels, _INT) + tf.range(3)
    sums = tf.math.unsorted_segment_sum(tf.reshape(weights, (-1,)), tf.reshape(index, (-1,)), 768 * count)
    return tf.reshape(sums, (-1, 256, 3))


def _equalizing_tables(counts: Any) -> Any:
    total = tf.reduce_sum(counts, axis=1, keepdims=True)
    smallest = tf.reduce_min(tf.where(counts > 0, counts, total), axis=1, keepdims=True)
    step = (total - smallest) // 255
    below = tf.cumsum(counts, axis=1, exclusive=True)
    mapping = tf.minimum((below + step // 2) // tf.maximum(step, 1), 255)
    return tf.where(step == 0, tf.range(256)[None, :, None], mapping)


@tf.function(
    input_signature=[
        _IMAGES,
        _ROWS,
        tf.TensorSpec((None, None, 256, 3), _FLOAT),
        tf.TensorSpec((None, None), _INT),
        tf.TensorSpec((None, None), _FLOAT),
    ],
    jit_compile=False,
)
def look_up_adaptively(images: Any, rows: Any, given: Any, kinds: Any, strengths: Any) -> Any:
    """Looks the levels of m images up in the product of p tables each, some of which depend on the image.

    Args:
        given: (p, m, 256, 3), the table where its kind is GIVEN.
        kinds: (p, m), how each table is got.
        strengths: (p, m), change of the contrast factor where the kind is CONTRAST.
    """
    group = tf.gather(images, rows)
    pixels = tf.reshape(group, (tf.shape(group)[0], -1, 3))
    pixel_counts = _histograms(pixels, tf.ones_like(pixels))
    levels = tf.constant(LEVELS, _FLOAT)[None, :, None]
    product = tf.tile(levels, (tf.shape(group)[0], 1, 3))
    for place in tf.range(tf.shape(kinds)[0]):
        counts = _histograms(product, pixel_counts)
        kind, change = kinds[place][:, None, None], strengths[place][:, None, None]
        means = tf.reduce_sum(counts * levels, axis=1, keepdims=True) / tf.reduce_sum(counts, axis=1, keepdims=True)
        low = tf.reduce_min(tf.where(counts > 0, levels, 255.0), axis=1, keepdims=True)
        high = tf.reduce_max(tf.where(counts > 0, levels, 0.0), axis=1, keepdims=True)
        stretched = tf.where(high > low, (levels - low) * 255.0 / tf.maximum(high - low, 1.0), levels)
        table = given[place]
        table = tf.where(kind == CONTRAST, _rounded((1.0 + change) * levels - change * means), table)
        table = tf.where(kind == AUTO_CONTRAST, _rounded(stretched), table)
        equalized = tf.cast(_equalizing_tables(tf.cast(tf.round(counts), _INT)), _FLOAT)
        table = tf.where(kind == EQUALIZE, equalized, table)
        product = _look_up(product[:, :, None, :], table)[:, :, 0, :]
    return _replace(images, rows, _look_up(group, product))
