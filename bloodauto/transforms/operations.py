"""Every image operation, what its magnitude means, and the named sets policies choose from.

A magnitude is a number in [0, 1], as in keras-cv. ``Operation.spread`` says how a magnitude becomes a strength in the
operation's physical unit, ``limit`` what the strongest is. At magnitude zero every operation leaves the image as it is,
except those with ``Spread.ALWAYS``, which know no strength.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

import numpy as np

from bloodauto.errors import RecipeError
from bloodauto.transforms import colour, filters, geometry
from bloodauto.transforms import lookup_tables as tables
from bloodauto.transforms.steps import Adaptive, Border, Filter, Kind, Levels, Mix, Payload, Warp

#: Uniform numbers drawn for each operation on each image: one for the spread, the others for directions, places, ...
UNIFORMS_PER_STEP = 7


class StrengthSampling(Enum):
    """How a magnitude m and a limit become the strength of one image."""

    ALWAYS = "always"  # no strength: the operation has one effect
    EXACT = "exact"  # m * limit
    SIGNED = "signed"  # m * limit or -m * limit, evenly
    UNIFORM = "uniform"  # U(0, m * limit)
    SYMMETRIC = "symmetric"  # U(-m * limit, m * limit)


@dataclass(frozen=True)
class Operation:
    """One image operation.

    Attributes:
        name: as used in ``operations=`` of a policy.
        kind: how it acts, which decides what it is fused with.
        spread: how magnitude becomes strength.
        limit: the strength at magnitude 1, in ``unit``.
        unit: physical unit of the strength.
        meaning: what the operation does.
        source: where it and its range come from.
        build: strengths (m,), uniform numbers (m, 6) and, for geometric and filter operations, height and width -> one
            affine map, table, matrix or parameter for each image. Adaptive ones: (statistics, strength) -> table or ramp.
        apply: filter operations only: (image, target, parameter) -> None.
        adaptive: for operations whose effect on a level depends on the image, whether they give a ``ramp`` or a ``table``.
        lossless: whether it permutes the pixels of a square image.
    """

    name: str
    kind: Kind
    strength_sampling: StrengthSampling
    limit: float
    unit: str
    description: str
    source: str
    build: Callable[..., Any]
    apply: Callable[[np.ndarray, np.ndarray, Any], None] | None = None
    adaptive: Literal["ramp", "table"] | None = None
    lossless: bool = False

    def strengths(self, magnitudes: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
        """Magnitudes and uniform numbers in [0, 1), float64 (m,) each -> strengths in ``unit``, float64 (m,)."""
        if self.strength_sampling is StrengthSampling.SIGNED:
            return self.limit * magnitudes * np.where(uniforms < 0.5, -1.0, 1.0)
        if self.strength_sampling is StrengthSampling.UNIFORM:
            return self.limit * magnitudes * uniforms
        if self.strength_sampling is StrengthSampling.SYMMETRIC:
            return self.limit * magnitudes * (2.0 * uniforms - 1.0)
        return self.limit * magnitudes

    def prepare(
        self, magnitudes: np.ndarray, uniforms: np.ndarray, height: int, width: int, border: Border
    ) -> Sequence[Payload]:
        """What was drawn for m images -> what each needs to be applied.

        Args:
            magnitudes: float64 (m,), in [0, 1].
            uniforms: float64 (m, UNIFORMS_PER_STEP), in [0, 1).
            height, width: of the images, in pixels.
            border: what geometric operations read outside the image.
        """
        strengths, extra = self.strengths(magnitudes, uniforms[:, 0]), uniforms[:, 1:]
        if self.kind is Kind.GEOMETRIC:
            lossless = self.lossless and height == width
            return [Warp(matrix, border, lossless) for matrix in self.build(strengths, extra, height, width)]
        if self.kind is Kind.FILTER:
            assert self.apply is not None
            return [Filter(self.apply, parameter) for parameter in self.build(strengths, extra, height, width)]
        if self.adaptive is not None:
            return [Adaptive(self.build, strength, self.adaptive == "ramp") for strength in strengths.tolist()]
        if self.kind is Kind.POINTWISE:
            return [Levels(values) for values in self.build(strengths, extra)]
        return [Mix(matrix) for matrix in self.build(strengths, extra)]


_KERAS_CV = "keras-cv 0.9 RandAugment"
_PAPER = "RandAugment, arXiv 1909.13719, with the ranges of AutoAugment, arXiv 1805.09501"
_OPTICS = "MedMNIST-C, arXiv 2406.17536; the range is ours"
_COLOUR = "colour jitter in histology, arXiv 1902.06543; the range is ours"
_GEOMETRY = "cells lie in any place, orientation and scale; the range is ours"

_G, _P, _C, _F = Kind.GEOMETRIC, Kind.POINTWISE, Kind.COLOUR, Kind.FILTER
_ALL_OPERATIONS = (
    Operation(
        "auto_contrast", _P, StrengthSampling.ALWAYS, 1.0, "-", "stretches each channel to 0..255", _KERAS_CV,
        tables.auto_contrast, adaptive="ramp",
    ),
    Operation(
        "equalize", _P, StrengthSampling.ALWAYS, 1.0, "-", "spreads each channel's histogram evenly", _KERAS_CV,
        tables.equalize, adaptive="table",
    ),
    Operation("invert", _P, StrengthSampling.ALWAYS, 1.0, "-", "255 minus the value", _PAPER, tables.invert),
    Operation(
        "solarize", _P, StrengthSampling.EXACT, 1.0, "share of 110 levels added and of 255 the threshold falls",
        "adds, then inverts what reaches the threshold", _KERAS_CV, tables.solarize,
    ),
    Operation(
        "posterize", _P, StrengthSampling.EXACT, 4.0, "bits dropped", "clears the lowest bits",
        _PAPER + "; keras gets weaker as its magnitude grows, ours does not", tables.posterize,
    ),
    Operation("brightness", _P, StrengthSampling.SYMMETRIC, 1.0, "share of 255 levels", "adds to all", _KERAS_CV, tables.brightness),
    Operation(
        "contrast", _P, StrengthSampling.SYMMETRIC, 1.0, "change of the factor", "moves each channel away from its mean", _KERAS_CV,
        tables.contrast, adaptive="ramp",
    ),
    Operation("gamma", _P, StrengthSampling.SYMMETRIC, 1.0, "octaves", "value to the power 2^octaves", _COLOUR, tables.gamma),
    Operation("exposure", _P, StrengthSampling.SYMMETRIC, 0.7, "octaves", "value times 2^octaves", _COLOUR, tables.exposure),
    Operation(
        "white_balance", _P, StrengthSampling.EXACT, 0.5, "octaves", "each channel times its own 2^U(-octaves, octaves)", _COLOUR,
        tables.white_balance,
    ),
    Operation("color", _C, StrengthSampling.EXACT, 1.0, "share of grey", "mixes with grey", _KERAS_CV, colour.desaturate),
    Operation(
        "saturation", _C, StrengthSampling.SYMMETRIC, 0.9, "change of the factor", "moves away from grey or towards it",
        _PAPER + " (Color)", colour.saturation,
    ),
    Operation("hue", _C, StrengthSampling.SYMMETRIC, 40.0, "degrees", "turns the hue, lightness kept", _COLOUR, colour.hue),
    Operation(
        "stain_jitter", Kind.OPTICAL, StrengthSampling.EXACT, 0.5, "share of each stain's optical density",
        "scales and shifts how strongly each stain took", "arXiv 1902.06543 in a Giemsa basis; the range is ours",
        colour.stain_jitter,
    ),
    Operation("shear_x", _G, StrengthSampling.SIGNED, 1.0, "pixels per pixel", "shears about the top left", _KERAS_CV, geometry.shear_x),
    Operation("shear_y", _G, StrengthSampling.SIGNED, 1.0, "pixels per pixel", "shears about the top left", _KERAS_CV, geometry.shear_y),
    Operation("translate_x", _G, StrengthSampling.SYMMETRIC, 1.0, "share of the width", "moves", _KERAS_CV, geometry.translate_x),
    Operation("translate_y", _G, StrengthSampling.SYMMETRIC, 1.0, "share of the height", "moves", _KERAS_CV, geometry.translate_y),
    Operation(
        "translate", _G, StrengthSampling.UNIFORM, 0.25, "share of the size", "moves in any direction", _GEOMETRY, geometry.translate
    ),
    Operation("rotate", _G, StrengthSampling.SIGNED, 30.0, "degrees", "turns about the middle", _PAPER, geometry.rotate),
    Operation("rotate_any", _G, StrengthSampling.SYMMETRIC, 180.0, "degrees", "turns about the middle", _GEOMETRY, geometry.rotate),
    Operation("zoom", _G, StrengthSampling.SYMMETRIC, 0.75, "octaves", "enlarges by 2^octaves", _GEOMETRY, geometry.zoom),
    Operation(
        "stretch", _G, StrengthSampling.SYMMETRIC, 0.5, "octaves of aspect ratio", "stretches in any direction, area kept",
        _GEOMETRY, geometry.stretch,
    ),
    Operation(
        "flip_horizontal", _G, StrengthSampling.ALWAYS, 1.0, "-", "left becomes right", _GEOMETRY, geometry.flip_horizontal,
        lossless=True,
    ),
    Operation(
        "flip_vertical", _G, StrengthSampling.ALWAYS, 1.0, "-", "top becomes bottom", _GEOMETRY, geometry.flip_vertical,
        lossless=True,
    ),
    Operation(
        "quarter_turn", _G, StrengthSampling.ALWAYS, 1.0, "-", "turns by 90, 180 or 270 degrees", _GEOMETRY, geometry.quarter_turn,
        lossless=True,
    ),
    Operation(
        "sharpness", _F, StrengthSampling.SIGNED, 0.9, "change of the factor", "moves away from a smoothed image or towards it",
        _PAPER, filters.draw_sharpness, filters.apply_kernel,
    ),
    Operation(
        "gaussian_blur", _F, StrengthSampling.UNIFORM, 2.5, "percent of the shorter side (standard deviation)",
        "blurs evenly", _OPTICS, filters.draw_relative_length, filters.apply_gaussian_blur,
    ),
    Operation(
        "defocus_blur", _F, StrengthSampling.UNIFORM, 3.0, "percent of the shorter side (radius)",
        "blurs as a lens out of focus", _OPTICS, filters.draw_relative_length, filters.apply_defocus_blur,
    ),
    Operation(
        "motion_blur", _F, StrengthSampling.UNIFORM, 8.0, "percent of the shorter side (length)",
        "blurs along a line", _OPTICS, filters.draw_motion_blur, filters.apply_motion_blur,
    ),
    Operation(
        "noise", _F, StrengthSampling.UNIFORM, 25.0, "levels (standard deviation)", "adds Gaussian noise", _OPTICS,
        filters.draw_noise, filters.apply_noise,
    ),
    Operation(
        "shot_noise", _F, StrengthSampling.UNIFORM, 25.0, "levels (standard deviation at white)",
        "adds noise that grows with the light", _OPTICS, filters.draw_noise, filters.apply_shot_noise,
    ),
    Operation(
        "jpeg", _F, StrengthSampling.UNIFORM, 90.0, "quality lost", "compresses as JPEG", _OPTICS, filters.draw_jpeg,
        filters.apply_jpeg,
    ),
    Operation(
        "cutout", _F, StrengthSampling.UNIFORM, 0.5, "share of the shorter side", "paints a square in the mean colour",
        "Cutout, arXiv 1708.04552; the range is ours", filters.draw_cutout, filters.apply_cutout,
    ),
    Operation(
        "grid_mask", _F, StrengthSampling.UNIFORM, 0.6, "share of the grid's period", "paints a grid of squares in the mean colour",
        "GridMask, arXiv 2001.04086, without its rotation; the range is ours", filters.draw_grid_mask,
        filters.apply_grid_mask,
    ),
)  # fmt: skip

#: Every operation by name.
OPERATIONS: dict[str, Operation] = {operation.name: operation for operation in _ALL_OPERATIONS}

#: The operations of keras-cv's RandAugment, with its ranges.
STANDARD = (
    "auto_contrast", "equalize", "solarize", "color", "contrast", "brightness",
    "shear_x", "shear_y", "translate_x", "translate_y",
)  # fmt: skip

#: The fourteen of the paper but identity, which ``rate`` stands for; ranges as keras-cv's where it has the operation.
PAPER = (*STANDARD, "rotate", "posterize", "sharpness")

#: AugMix's, which leave out what the corruptions it is judged by consist of; ranges as above.
AUG_MIX = (
    "auto_contrast", "equalize", "posterize", "solarize", "rotate", "shear_x", "shear_y", "translate_x", "translate_y",
)  # fmt: skip

#: What differs between laboratories: stain, light, colour, optics, sensor and how the cell lies.
CELLS = (
    "stain_jitter", "hue", "saturation", "white_balance", "exposure", "gamma", "contrast", "auto_contrast",
    "rotate_any", "zoom", "stretch", "translate", "flip_horizontal", "quarter_turn",
    "gaussian_blur", "defocus_blur", "motion_blur", "sharpness", "noise", "shot_noise", "jpeg", "cutout",
)  # fmt: skip

OPERATION_SETS: dict[str, tuple[str, ...]] = {"standard": STANDARD, "paper": PAPER, "cells": CELLS, "aug_mix": AUG_MIX}


def select_operations(operations: str | Sequence[str]) -> tuple[Operation, ...]:
    """The name of a set, or names of operations (one given twice is drawn twice as often) -> operations.

    Raises:
        RecipeError: an unknown name, or none at all.
    """
    if isinstance(operations, str):
        if operations not in OPERATION_SETS:
            raise RecipeError(
                f"operations: expected {', '.join(OPERATION_SETS)} or a list of operations, got {operations!r}."
            )
        operations = OPERATION_SETS[operations]
    unknown = [name for name in operations if name not in OPERATIONS]
    if unknown or not operations:
        raise RecipeError(
            f"operations: expected names out of {', '.join(OPERATIONS)}, got {unknown[0]!r}."
            if unknown
            else "operations: expected at least one operation, got an empty list."
        )
    return tuple(OPERATIONS[name] for name in operations)
