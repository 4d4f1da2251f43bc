"""The image operations a recipe can name, and the physical unit in which the strength of each can be given."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """What a range may hold.

    Attributes:
        unit: the word after ``range_`` in a recipe.
        lowest, highest: the outermost values.
    """

    unit: str
    lowest: float
    highest: float


_ANGLE = Span("degrees", -180.0, 180.0)
_SIGNED_SHARE = Span("fraction", -1.0, 1.0)
_SHARE = Span("fraction", 0.0, 1.0)
_FACTOR = Span("factor", 0.0, 4.0)
_OCTAVES = Span("octaves", -3.0, 3.0)
_PERCENT = Span("percent", 0.0, 25.0)
_LEVELS = Span("levels", 0.0, 128.0)

#: Every operation of the augmentation engine; None for those that have one effect and no strength.
OPERATION_SPANS: dict[str, Span | None] = {
    "auto_contrast": None,
    "equalize": None,
    "invert": None,
    "solarize": _SHARE,
    "posterize": Span("bits", 0.0, 7.0),
    "brightness": _SIGNED_SHARE,
    "contrast": _FACTOR,
    "gamma": _OCTAVES,
    "exposure": _OCTAVES,
    "white_balance": Span("octaves", 0.0, 3.0),
    "color": _SHARE,
    "saturation": _FACTOR,
    "hue": _ANGLE,
    "stain_jitter": _SHARE,
    "shear_x": _SIGNED_SHARE,
    "shear_y": _SIGNED_SHARE,
    "translate_x": _SIGNED_SHARE,
    "translate_y": _SIGNED_SHARE,
    "translate": _SHARE,
    "rotate": _ANGLE,
    "rotate_any": _ANGLE,
    "zoom": Span("factor", 0.125, 8.0),
    "stretch": _OCTAVES,
    "flip_horizontal": None,
    "flip_vertical": None,
    "quarter_turn": None,
    "sharpness": _FACTOR,
    "gaussian_blur": _PERCENT,
    "defocus_blur": _PERCENT,
    "motion_blur": _PERCENT,
    "noise": _LEVELS,
    "shot_noise": _LEVELS,
    "jpeg": Span("quality", 1.0, 100.0),
    "cutout": _SHARE,
    "grid_mask": _SHARE,
}

#: Named sets of operations to draw from; ``bloodauto.transforms.operations`` says what is in them.
OPERATION_SET_NAMES = ("standard", "paper", "cells", "aug_mix")
