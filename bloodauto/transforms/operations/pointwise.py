"""Light and single channels: operations that map level to level. Factories give many maps at once, one for each strength."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from bloodauto.transforms.lookup_tables import LEVELS, Statistics, ramps
from bloodauto.transforms.physics import ENCODING_GAMMA, mired_shift
from bloodauto.transforms.registry import adaptive, pointwise
from bloodauto.types import Floats


def _to_levels(values: Floats) -> NDArray[np.uint8]:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


@pointwise("brightness", covers={"brightness": lambda fraction: math.log2(1 + fraction) * ENCODING_GAMMA})
def brightness(delta: Floats, uniforms: Floats) -> Floats:
    """Adds ``delta`` times 255 levels; ramps (m, 3, 4)."""
    return ramps(np.ones((len(delta), 1)), 255.0 * delta[:, None])


@pointwise("exposure", covers={"brightness": lambda octaves: octaves * ENCODING_GAMMA})
def exposure(octaves: Floats, uniforms: Floats) -> Floats:
    """Multiplies by 2 ** octaves; ramps (m, 3, 4)."""
    return ramps(np.exp2(octaves)[:, None], np.zeros((len(octaves), 1)))


@pointwise(
    "white_balance",
    # A channel gain of each of red and blue, one up and one down; the density that a gain adds.
    covers={
        "colour_temperature": lambda octaves: mired_shift(2 * octaves * math.log(2) * ENCODING_GAMMA),
        "background_colour": lambda octaves: octaves * math.log(2),
    },
)
def white_balance(octaves: Floats, uniforms: Floats) -> Floats:
    """Multiplies each channel by its own gain, 2 ** U(-octaves, octaves); ramps (m, 3, 4)."""
    gains = np.exp2(octaves[:, None] * (2.0 * uniforms[:, :3] - 1.0))
    return ramps(gains, np.zeros((len(octaves), 1)))


@pointwise("invert", covers={})
def invert(strengths: Floats, uniforms: Floats) -> Floats:
    """255 minus the level; ramps (m, 3, 4)."""
    return ramps(np.full((len(strengths), 1), -1.0), np.full((len(strengths), 1), 255.0))


@pointwise("solarize", covers={})
def solarize(strengths: Floats, uniforms: Floats) -> NDArray[np.uint8]:
    """Adds 110 * strength levels, then inverts levels at or above 255 * (1 - strength); tables (m, 256).

    As keras-cv, except that nothing is inverted at strength zero, where keras-cv turns white pixels black.
    """
    raised = np.minimum(LEVELS + 110.0 * strengths[:, None], 255.0)
    threshold = np.where(strengths > 0, 255.0 * (1.0 - strengths), np.inf)[:, None]
    return _to_levels(np.where(raised < threshold, raised, 255.0 - raised))


@pointwise("posterize", covers={})
def posterize(bits_dropped: Floats, uniforms: Floats) -> NDArray[np.uint8]:
    """Clears the lowest bits, rounded to a whole number of them; tables (m, 256)."""
    step = np.left_shift(1, np.rint(bits_dropped).astype(np.int64))[:, None]
    return (np.arange(256) // step * step).astype(np.uint8)


@pointwise("gamma", covers={"gamma": lambda octaves: octaves})
def gamma(octaves: Floats, uniforms: Floats) -> NDArray[np.uint8]:
    """Raises the level, as a fraction of 255, to the power 2 ** octaves; tables (m, 256)."""
    return _to_levels(255.0 * (LEVELS / 255.0) ** np.exp2(octaves)[:, None])


@adaptive("contrast", gives="ramp", covers={"contrast": lambda change: math.log2(1 + change)})
def contrast(statistics: Statistics, change: float) -> Floats:
    """Scales the distance of each channel from its mean by 1 + change; a ramp (3, 4)."""
    return ramps(np.array([1.0 + change]), -change * statistics.means())


# It has no strength; the level of the family is an estimate for images of cells, as is the one of ``equalize``.
@adaptive("auto_contrast", gives="ramp", covers={"contrast": lambda _: 0.8})
def auto_contrast(statistics: Statistics, strength: float) -> Floats:
    """Stretches each channel to 0-255 and leaves a constant channel as it is; a ramp (3, 4)."""
    ramp = np.zeros((3, 4))
    for channel, (low, high) in enumerate(statistics.extremes()):
        factor = 255.0 / (high - low) if high > low else 1.0
        ramp[channel, channel] = factor
        ramp[channel, 3] = -low * factor if high > low else 0.0
    return ramp


@adaptive("equalize", gives="table", covers={"contrast": lambda _: 1.55})
def equalize(statistics: Statistics, strength: float) -> NDArray[np.uint8]:
    """Flattens the histogram of each channel; a table (256, 3).

    As keras-cv: the step is taken from the smallest count that occurs, where Pillow takes the count of the highest level
    that occurs.
    """
    counts = statistics.histograms()
    mapping = np.add.accumulate(counts, axis=1)
    totals = mapping[:, -1].copy()
    rarest = np.minimum.reduce(counts, axis=1, where=counts > 0, initial=np.inf)
    steps = (totals - rarest) // 255
    mapping -= counts
    mapping += (steps // 2)[:, None]
    mapping /= np.maximum(steps, 1.0)[:, None]
    np.minimum(mapping, 255.0, out=mapping)
    if steps.min() == 0:  # too few pixels, or all of one level: the channel stays as it is
        mapping[steps == 0] = LEVELS
    return mapping.T.astype(np.uint8, order="C")
