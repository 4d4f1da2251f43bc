"""The image operations that a recipe can name: what the strength of each means and which values it may take.

This table is the declared half of each operation. The validation of recipes, unit conversions, the overlap with the shift
suite and the documents' tables derive from it. ``bloodauto.transforms.operations`` holds the code, joined by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Literal

OperationGroup = Literal["light", "colour", "stain", "geometry", "optics", "sensor", "occlusion"]


class StrengthSampling(Enum):
    """How a magnitude m in 0-1 and a limit become the strength of one image."""

    ALWAYS = "always"  # no strength: the operation has one effect
    EXACT = "exact"  # m * limit
    SIGNED = "signed"  # m * limit or -m * limit, equally likely
    UNIFORM = "uniform"  # U(0, m * limit)
    SYMMETRIC = "symmetric"  # U(-m * limit, m * limit)


class RangeScale(Enum):
    """How a value of a range relates to the strength that the operation takes."""

    STRENGTH = "strength"  # the strength itself
    FACTOR = "factor"  # 1 + strength
    MAGNIFICATION = "magnification"  # 2 ** strength
    QUALITY = "quality"  # 100 - strength


_NEUTRAL_VALUES = {
    RangeScale.STRENGTH: 0.0,
    RangeScale.FACTOR: 1.0,
    RangeScale.MAGNIFICATION: 1.0,
    RangeScale.QUALITY: 100.0,
}


@dataclass(frozen=True)
class RangeSpec:
    """The values that ``range_<unit>`` of a recipe may hold.

    Attributes:
        unit: The word after ``range_`` in a recipe.
        lowest: The lowest value.
        highest: The highest value.
        scale: What a value means to the operation.
    """

    unit: str
    lowest: float
    highest: float
    scale: RangeScale = RangeScale.STRENGTH

    @property
    def neutral(self) -> float:
        """The value that leaves an image as it is."""
        return _NEUTRAL_VALUES[self.scale]


@dataclass(frozen=True)
class OperationSpec:
    """One image operation as a recipe knows it.

    Attributes:
        name: The name in recipes.
        group: What the operation imitates.
        sampling: How a magnitude becomes the strength of an image.
        limit: The strength at magnitude 1, in ``unit``; 1 without a meaning for ``StrengthSampling.ALWAYS``.
        unit: The unit of the strength; ``-`` for ``StrengthSampling.ALWAYS``.
        range: The values that a recipe may give in place of a magnitude; None where the operation has no strength.
        description: What the operation does, as a predicate.
        source: The paper or program it comes from, and how ours deviates.
    """

    name: str
    group: OperationGroup
    sampling: StrengthSampling
    limit: float
    unit: str
    range: RangeSpec | None
    description: str
    source: str

    def __post_init__(self) -> None:
        assert self.limit > 0, f"{self.name}: expected a limit above 0, got {self.limit}"
        without_strength = self.sampling is StrengthSampling.ALWAYS
        assert (self.range is None) == without_strength, f"{self.name}: a range goes with a strength, and only with it"


_KERAS_CV = "keras-cv 0.9 RandAugment"
_PAPER = "RandAugment, arXiv:1909.13719, with the ranges of AutoAugment, arXiv:1805.09501"
_OPTICS = "MedMNIST-C, arXiv:2406.17536; the range is ours"
_COLOUR = "Colour jitter in histology, arXiv:1902.06543; the range is ours"
_GEOMETRY = "Cells lie in any position, orientation and scale; the range is ours"

_ANGLE = RangeSpec("degrees", -180.0, 180.0)
_SIGNED_FRACTION = RangeSpec("fraction", -1.0, 1.0)
_FRACTION = RangeSpec("fraction", 0.0, 1.0)
_FACTOR = RangeSpec("factor", 0.0, 4.0, RangeScale.FACTOR)
_OCTAVES = RangeSpec("octaves", -3.0, 3.0)
_PERCENT = RangeSpec("percent", 0.0, 25.0)
_LEVELS = RangeSpec("levels", 0.0, 128.0)

_ALWAYS, _EXACT = StrengthSampling.ALWAYS, StrengthSampling.EXACT
_SIGNED, _UNIFORM, _SYMMETRIC = StrengthSampling.SIGNED, StrengthSampling.UNIFORM, StrengthSampling.SYMMETRIC

_SPECS = (
    OperationSpec(
        "auto_contrast", "light", _ALWAYS, 1.0, "-", None, "stretches each channel to 0-255", _KERAS_CV
    ),
    OperationSpec(
        "equalize", "light", _ALWAYS, 1.0, "-", None, "flattens the histogram of each channel", _KERAS_CV
    ),
    OperationSpec("invert", "light", _ALWAYS, 1.0, "-", None, "replaces each level by 255 minus the level", _PAPER),
    OperationSpec(
        "solarize", "light", _EXACT, 1.0, "fraction of 110 levels added and of 255 levels that the threshold falls",
        _FRACTION, "adds, then inverts levels at or above the threshold", _KERAS_CV,
    ),
    OperationSpec(
        "posterize", "light", _EXACT, 4.0, "bits dropped", RangeSpec("bits", 0.0, 7.0), "clears the lowest bits",
        f"{_PAPER}; keras gets weaker as its magnitude grows, ours does not",
    ),
    OperationSpec(
        "brightness", "light", _SYMMETRIC, 1.0, "fraction of 255 levels", _SIGNED_FRACTION, "adds to all levels",
        _KERAS_CV,
    ),
    OperationSpec(
        "contrast", "light", _SYMMETRIC, 1.0, "change of the factor", _FACTOR,
        "scales the distance of each channel from its mean", _KERAS_CV,
    ),
    OperationSpec("gamma", "light", _SYMMETRIC, 1.0, "octaves", _OCTAVES, "raises levels to the power 2^octaves", _COLOUR),
    OperationSpec("exposure", "light", _SYMMETRIC, 0.7, "octaves", _OCTAVES, "multiplies levels by 2^octaves", _COLOUR),
    OperationSpec(
        "white_balance", "colour", _EXACT, 0.5, "octaves", RangeSpec("octaves", 0.0, 3.0),
        "multiplies each channel by its own 2^U(-octaves, octaves)", _COLOUR,
    ),
    OperationSpec("color", "colour", _EXACT, 1.0, "fraction of grey", _FRACTION, "mixes with grey", _KERAS_CV),
    OperationSpec(
        "saturation", "colour", _SYMMETRIC, 0.9, "change of the factor", _FACTOR, "scales the distance from grey",
        f"{_PAPER} (Color)",
    ),
    OperationSpec("hue", "colour", _SYMMETRIC, 40.0, "degrees", _ANGLE, "turns the hue and keeps the lightness", _COLOUR),
    OperationSpec(
        "stain_jitter", "stain", _EXACT, 0.5, "fraction of each stain's optical density", _FRACTION,
        "scales and shifts the optical density of each stain", "arXiv:1902.06543 in a Giemsa basis; the range is ours",
    ),
    OperationSpec(
        "shear_x", "geometry", _SIGNED, 1.0, "pixels per pixel", _SIGNED_FRACTION, "shears about the top left", _KERAS_CV
    ),
    OperationSpec(
        "shear_y", "geometry", _SIGNED, 1.0, "pixels per pixel", _SIGNED_FRACTION, "shears about the top left", _KERAS_CV
    ),
    OperationSpec(
        "translate_x", "geometry", _SYMMETRIC, 1.0, "fraction of the width", _SIGNED_FRACTION, "shifts", _KERAS_CV
    ),
    OperationSpec(
        "translate_y", "geometry", _SYMMETRIC, 1.0, "fraction of the height", _SIGNED_FRACTION, "shifts", _KERAS_CV
    ),
    OperationSpec(
        "translate", "geometry", _UNIFORM, 0.25, "fraction of the size", _FRACTION, "shifts in any direction", _GEOMETRY
    ),
    OperationSpec("rotate", "geometry", _SIGNED, 30.0, "degrees", _ANGLE, "rotates about the centre", _PAPER),
    OperationSpec("rotate_any", "geometry", _SYMMETRIC, 180.0, "degrees", _ANGLE, "rotates about the centre", _GEOMETRY),
    OperationSpec(
        "zoom", "geometry", _SYMMETRIC, 0.75, "octaves", RangeSpec("factor", 0.125, 8.0, RangeScale.MAGNIFICATION),
        "magnifies by 2^octaves", _GEOMETRY,
    ),
    OperationSpec(
        "stretch", "geometry", _SYMMETRIC, 0.5, "octaves of aspect ratio", _OCTAVES,
        "stretches in any direction and keeps the area", _GEOMETRY,
    ),
    OperationSpec("flip_horizontal", "geometry", _ALWAYS, 1.0, "-", None, "swaps left and right", _GEOMETRY),
    OperationSpec("flip_vertical", "geometry", _ALWAYS, 1.0, "-", None, "swaps top and bottom", _GEOMETRY),
    OperationSpec("quarter_turn", "geometry", _ALWAYS, 1.0, "-", None, "rotates by 90, 180 or 270 degrees", _GEOMETRY),
    OperationSpec(
        "sharpness", "optics", _SIGNED, 0.9, "change of the factor", _FACTOR, "scales the distance from a smoothed image",
        _PAPER,
    ),
    OperationSpec(
        "gaussian_blur", "optics", _UNIFORM, 2.5, "percent of the shorter side (standard deviation)", _PERCENT,
        "blurs with a Gaussian kernel", _OPTICS,
    ),
    OperationSpec(
        "defocus_blur", "optics", _UNIFORM, 3.0, "percent of the shorter side (radius)", _PERCENT,
        "blurs with a disc kernel", _OPTICS,
    ),
    OperationSpec(
        "motion_blur", "optics", _UNIFORM, 8.0, "percent of the shorter side (length)", _PERCENT, "blurs along a line",
        _OPTICS,
    ),
    OperationSpec(
        "noise", "sensor", _UNIFORM, 25.0, "levels (standard deviation)", _LEVELS, "adds Gaussian noise", _OPTICS
    ),
    OperationSpec(
        "shot_noise", "sensor", _UNIFORM, 25.0, "levels (standard deviation at white)", _LEVELS,
        "adds noise that grows with the light", _OPTICS,
    ),
    OperationSpec(
        "jpeg", "sensor", _UNIFORM, 90.0, "quality lost", RangeSpec("quality", 1.0, 100.0, RangeScale.QUALITY),
        "compresses as JPEG", _OPTICS,
    ),
    OperationSpec(
        "cutout", "occlusion", _UNIFORM, 0.5, "fraction of the shorter side", _FRACTION,
        "paints a square in the mean colour", "Cutout, arXiv:1708.04552; the range is ours",
    ),
    OperationSpec(
        "grid_mask", "occlusion", _UNIFORM, 0.6, "fraction of the grid's period", _FRACTION,
        "paints a grid of squares in the mean colour", "GridMask, arXiv:2001.04086, without its rotation; the range is ours",
    ),
)  # fmt: skip

#: Every operation by its name, in the order of the documents.
OPERATION_SPECS: Mapping[str, OperationSpec] = MappingProxyType({spec.name: spec for spec in _SPECS})

_STANDARD = (
    "auto_contrast", "equalize", "solarize", "color", "contrast", "brightness",
    "shear_x", "shear_y", "translate_x", "translate_y",
)  # fmt: skip

#: Named sets of operations to draw from.
OPERATION_SETS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        # Those of keras-cv's RandAugment, with its ranges and in its order.
        "standard": _STANDARD,
        # The fourteen of RandAugment's paper except identity, for which ``rate`` stands; ranges as keras-cv's where it has
        # them.
        "paper": (*_STANDARD, "rotate", "posterize", "sharpness"),
        # What differs between laboratories: stain, light, colour, optics, sensor and the position of the cell.
        "cells": (
            "stain_jitter", "hue", "saturation", "white_balance", "exposure", "gamma", "contrast", "auto_contrast",
            "rotate_any", "zoom", "stretch", "translate", "flip_horizontal", "quarter_turn",
            "gaussian_blur", "defocus_blur", "motion_blur", "sharpness", "noise", "shot_noise", "jpeg", "cutout",
        ),
        # AugMix's, without the corruptions of the benchmark that its paper evaluates it on; ranges as above.
        "aug_mix": (
            "auto_contrast", "equalize", "posterize", "solarize", "rotate", "shear_x", "shear_y",
            "translate_x", "translate_y",
        ),
    }
)  # fmt: skip
assert all(name in OPERATION_SPECS for names in OPERATION_SETS.values() for name in names)
