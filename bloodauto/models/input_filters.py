"""Filters between the image and the backbone, as parts of the network: standard Keras operations, nothing trained.

Each takes and returns float32 images (n, side, side, 3), RGB, 0-255. They run on whatever device the network runs on, and the
exported model carries them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from keras import layers, ops

#: Rec. 709 luma weights of red, green and blue.
_LUMA = np.array([0.2126, 0.7152, 0.0722], dtype=np.float32)

#: Statistics are taken on a grid of about this many averaged pixels a side: specks and noise average out, and what a
#: quantile costs no longer depends on the image's size.
_GRID_SIDE = 24
#: The empty slide is at least so bright that a tenth of the grid shows it, in each channel.
_BRIGHTEST_FRACTION = 0.1
#: A slide darker than this is taken for this dark; nothing is divided by black.
_DARKEST_SLIDE = 16.0

#: The reference of ``normalise_stain``: medians of the PBC collection (Acevedo et al. 2020, doi:10.1016/j.dib.2020.105474):
#: grey levels of the empty slide, and the density-weighted mean optical density (natural logarithm) of what is stained.
REFERENCE_SLIDE = np.array([254.0, 228.0, 202.0], dtype=np.float32)
REFERENCE_DENSITY = np.array([0.92, 1.44, 0.38], dtype=np.float32)
#: No density is scaled by less than its inverse or more than this: an image without a cell keeps its emptiness.
LARGEST_GAIN = 2.0

#: Sobel's weights sum to 4 on either side of the middle, so that 4 would make the steepest edge 255; cells have soft ones.
_SOBEL_SCALE = 2.0

#: Of ``remove_background``: where a cell ends, as a fraction of the densest red; how fast; and how dense a cell is at least.
_CELL_DENSITY_FRACTION = 0.2
_CELL_EDGE_STEEPNESS = 40.0
_LEAST_CELL_DENSITY = 0.3

#: What ``standardise`` and ``standardise_density`` bring every channel to: mean and standard deviation in grey levels, about
#: those of stained cells on a bright slide, so that little is cut at 0 and 255.
_STANDARD_MEAN = 160.0
_STANDARD_DEVIATION = 56.0
#: An image that varies less (grey levels; natural optical density) is taken to vary this much: noise is not made a cell.
_LEAST_DEVIATION = 12.0
_LEAST_DENSITY_DEVIATION = 0.08


def _grid(images: Any) -> Any:
    side = max(images.shape[1] // _GRID_SIDE, 1)
    return layers.AveragePooling2D(side, dtype="float32")(images)


def _slide_colour(grid: Any) -> Any:
    """Grey level that the brightest tenth of each channel reaches, (n, 1, 1, 3)."""
    num_pixels = grid.shape[1] * grid.shape[2]
    by_channel = ops.transpose(ops.reshape(grid, (-1, num_pixels, 3)), (0, 2, 1))
    brightest = ops.top_k(by_channel, math.ceil(_BRIGHTEST_FRACTION * num_pixels))[0]
    return ops.maximum(ops.reshape(brightest[:, :, -1], (-1, 1, 1, 3)), _DARKEST_SLIDE)


def _density(images: Any, slide: Any) -> Any:
    """Natural optical density relative to the empty slide; below 0 where a pixel is brighter than it."""
    return ops.log(slide / ops.maximum(images, 1.0))


def normalise_stain(images: Any) -> Any:
    """Brings the empty slide and the stain of each image to one reference.

    Per image and channel: the empty slide's grey level becomes ``REFERENCE_SLIDE``, which takes out the lamp's and the
    plasma's colour and the exposure; optical densities are scaled so that their mean over the stained pixels becomes
    ``REFERENCE_DENSITY``, which takes out staining time, the dyes' hue and the camera's gamma (a factor in density).

    After Macenko et al. 2009 (doi:10.1109/ISBI.2009.5193250), in whose optical densities dyes add, and Reinhard et al. 2001
    (doi:10.1109/38.946629), who match statistics per channel. Deviations: densities are relative to each image's own slide;
    they are only scaled, never moved, so that an empty pixel stays empty (Reinhard match the spread as well, which would
    tint the background by how much of the image the cell covers); channels are not unmixed into dyes, since one cell need
    not show both; every pixel counts by the square of its mean density, which needs no threshold for what is stained.
    """
    grid = _grid(images)
    slide = _slide_colour(grid)
    stained = ops.maximum(_density(grid, slide), 0.0)
    weight = ops.square(ops.mean(stained, axis=-1, keepdims=True))
    mean = ops.mean(weight * stained, axis=(1, 2), keepdims=True) / (
        ops.mean(weight, axis=(1, 2), keepdims=True) + 1e-6
    )
    gain = ops.clip(ops.divide(REFERENCE_DENSITY, ops.maximum(mean, 1e-3)), 1 / LARGEST_GAIN, LARGEST_GAIN)
    return ops.clip(ops.exp(-gain * _density(images, slide)) * REFERENCE_SLIDE, 0.0, 255.0)


def grey(images: Any) -> Any:
    """Luma in all three channels, so that a backbone for colour takes it."""
    return ops.repeat(ops.sum(images * _LUMA, axis=-1, keepdims=True), 3, axis=-1)


def sobel(images: Any) -> Any:
    """Length of each channel's gradient by Sobel's 3 x 3 differences: twice the step across an edge, cut at 255.

    The border is mirrored, so that it is no edge.
    """
    around = ops.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="symmetric")
    rows = around[:, :-2] + 2.0 * around[:, 1:-1] + around[:, 2:]
    columns = around[:, :, :-2] + 2.0 * around[:, :, 1:-1] + around[:, :, 2:]
    across = (rows[:, :, 2:] - rows[:, :, :-2]) / _SOBEL_SCALE
    down = (columns[:, 2:] - columns[:, :-2]) / _SOBEL_SCALE
    return ops.minimum(ops.sqrt(ops.square(across) + ops.square(down) + 1e-6), 255.0)


def remove_background(images: Any) -> Any:
    """Turns what is as pale as red blood cells and plasma white, and leaves the stained cell as it is.

    The cell is what absorbs red, as azure does and haemoglobin and eosin hardly do: where the red density, averaged over
    neighbouring pixels, is above a fraction of the image's own densest part. The edge is soft. Pale cytoplasm goes with
    the background; that is the price of separating cell and background by colour alone.
    """
    grid = _grid(images)
    slide = _slide_colour(grid)
    side = 2 * max(images.shape[1] // 2 // _GRID_SIDE, 1) + 1
    red = ops.maximum(_density(images, slide)[..., :1], 0.0)
    red = layers.AveragePooling2D(side, strides=1, padding="same", dtype="float32")(red)
    densest = ops.max(red, axis=(1, 2), keepdims=True)
    cell = ops.sigmoid(
        _CELL_EDGE_STEEPNESS * (red / ops.maximum(densest, _LEAST_CELL_DENSITY) - _CELL_DENSITY_FRACTION)
    )
    return 255.0 + (images - 255.0) * cell


def _standard(values: Any, least_deviation: float) -> Any:
    """Each image's channels moved and scaled to mean 0 and standard deviation 1 (less, where they hardly vary)."""
    mean = ops.mean(values, axis=(1, 2), keepdims=True)
    deviation = ops.std(values, axis=(1, 2), keepdims=True)
    return (values - mean) / ops.maximum(deviation, least_deviation)


def standardise(images: Any) -> Any:
    """Brings each channel of each image to one mean and one standard deviation, which removes lamp, exposure and contrast.

    Instance normalisation (Ulyanov et al., arXiv:1607.08022) of the image itself. Its price: the fraction of the image that
    the cell fills changes the colours, and so does whatever covers a part of it.
    """
    standard = _standard(images, _LEAST_DEVIATION)
    return ops.clip(_STANDARD_MEAN + _STANDARD_DEVIATION * standard, 0.0, 255.0)


def standardise_density(images: Any) -> Any:
    """As ``standardise``, in optical density, inverted so that dense pixels stay dark.

    There a lamp's colour and an exposure are added and the strength of a stain multiplies, so that mean and deviation take out
    just these. Pale cytoplasm and red cells come out flatter, nuclei with more detail.
    """
    density = -ops.log((images + 1.0) / 256.0)
    standard = _standard(density, _LEAST_DENSITY_DEVIATION)
    return ops.clip(_STANDARD_MEAN - _STANDARD_DEVIATION * standard, 0.0, 255.0)


_FILTERS: dict[str, Callable[[Any], Any]] = {
    "grey": grey,
    "sobel": sobel,
    "remove_background": remove_background,
    "normalise_stain": normalise_stain,
    "standardise": standardise,
    "standardise_density": standardise_density,
}


def apply_filters(names: Sequence[str], images: Any) -> Any:
    """Applies filters to a symbolic tensor of images.

    Args:
        names: The filters, in their order.
        images: RGB 0-255, shape (batch, side, side, 3).

    Returns:
        float32 images of the same shape.
    """
    if names:
        images = ops.cast(images, "float32")
    for name in names:
        images = _FILTERS[name](images)
    return images
