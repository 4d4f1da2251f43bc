"""Which families training can rehearse, and how far: the operations that do to an image what a family does.

A network that was trained on a corruption has seen the question before, so its accuracy there says little about a shift that
nobody foresaw. What recipes of a search may train on therefore counts less in the score of all of them (``suite.ShiftSuite``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

from bloodauto.shift.corruptions.family import SEVERITIES, CorruptionFamily, TrainingCoverage
from bloodauto.shift.corruptions.light import CHANNEL_NANOMETRES, ENCODING_GAMMA, RADIATION_CONSTANT_NM_KELVIN
from bloodauto.shift.corruptions.registry import FAMILIES
from bloodauto.transforms import OPERATIONS, Policy, StainJitter, UniformRange
from bloodauto.transforms.operations import select_operations


@dataclass(frozen=True)
class Overlap:
    """An operation of training that rehearses a family.

    Attributes:
        operation: its name in ``augment.OPERATIONS``.
        family: the family's name.
        level: the operation's strength, in its own unit -> the family's level that looks like it.
    """

    operation: str
    family: str
    level: Callable[[float], float]


def _same(strength: float) -> float:
    return strength


def _percent(share: float) -> float:
    return 100 * share


def _stain_octaves(share: float) -> float:
    """log2 of the factor on a dye's density."""
    return math.log2(1 + share)


def _mired(octaves: float) -> float:
    """The mired shift that moves red against blue as far as a channel gain of each does, one up and one down."""
    red, _, blue = RADIATION_CONSTANT_NM_KELVIN * 1e-6 / CHANNEL_NANOMETRES
    return 2 * octaves * math.log(2) * ENCODING_GAMMA / (blue - red)


#: Gaussian blur of deviation s looks like a disc of radius 2 s (equal second moments) and a box of width sqrt(12) s.
_DISC_OVER_DEVIATION = 2.0
#: Lengths in per cent of the side -> pixels of a cell's usual image, whose own grid the sensor's families refer to.
_PX_PER_PERCENT = 0.96

OVERLAPS: tuple[Overlap, ...] = (
    Overlap("defocus_blur", "defocus", _same),
    Overlap("gaussian_blur", "defocus", lambda deviation: _DISC_OVER_DEVIATION * deviation),
    Overlap("motion_blur", "motion", _same),
    Overlap("noise", "gaussian_noise", _same),
    # Noise of deviation s at white is that of (255 / s)^2 photons.
    Overlap("shot_noise", "shot_noise", lambda deviation: (255 / max(deviation, 1e-6)) ** 2),
    Overlap("noise", "shot_noise", lambda deviation: (255 / max(deviation, 1e-6)) ** 2),
    Overlap("shot_noise", "gaussian_noise", lambda deviation: deviation / math.sqrt(2)),
    Overlap("jpeg", "jpeg", lambda quality_lost: 100 - quality_lost),
    Overlap("gaussian_blur", "resolution", lambda deviation: math.sqrt(12) * _PX_PER_PERCENT * deviation),
    Overlap("defocus_blur", "resolution", lambda radius: math.sqrt(3) * _PX_PER_PERCENT * radius),
    Overlap("exposure", "brightness", lambda octaves: octaves * ENCODING_GAMMA),
    Overlap("brightness", "brightness", lambda share: math.log2(1 + share) * ENCODING_GAMMA),
    Overlap("contrast", "contrast", lambda change: math.log2(1 + change)),
    Overlap("auto_contrast", "contrast", lambda _: 0.8),
    Overlap("equalize", "contrast", lambda _: 1.55),
    Overlap("gamma", "gamma", _same),
    Overlap("white_balance", "colour_temperature", _mired),
    Overlap("white_balance", "background_colour", lambda octaves: octaves * math.log(2)),
    Overlap("color", "saturation", _percent),
    Overlap("saturation", "saturation", _percent),
    Overlap("hue", "stain_hue", _same),
    Overlap("stain_jitter", "blue_stain_intensity", _stain_octaves),
    Overlap("stain_jitter", "eosin_intensity", _stain_octaves),
    Overlap("stain_jitter", "staining_time", _stain_octaves),
    Overlap("rotate", "rotation", _same),
    Overlap("rotate_any", "rotation", _same),
    Overlap("zoom", "scale", _same),
    Overlap("zoom", "crop", lambda octaves: 100 * (1 - 2.0**-octaves)),
    Overlap("translate", "translation", _percent),
    Overlap("translate_x", "translation", _percent),
    Overlap("translate_y", "translation", _percent),
    Overlap("cutout", "occlusion", lambda share: 100 * share**2),
    Overlap("grid_mask", "occlusion", lambda share: 100 * share**2),
)

#: Operations that rehearse no family. Right-angle turns meet ``rotation`` in the one point of 90 degrees.
OPERATIONS_WITHOUT_OVERLAP = frozenset(
    {"invert", "solarize", "posterize", "shear_x", "shear_y", "stretch", "sharpness"}
    | {"flip_horizontal", "flip_vertical", "quarter_turn"}
)


def strongest_strengths(policy: Policy) -> dict[str, float]:
    """The operations a policy may apply, and the strongest strength of each, in its unit; noise on it is left out."""
    strongest: dict[str, float] = {}
    for name, strength in _operations(policy):
        strongest[name] = max(strongest.get(name, 0.0), strength)
    return strongest


def _operations(value: Any) -> Iterator[tuple[str, float]]:
    """Found by the fields' names, so that a policy that holds others needs no entry here."""
    if isinstance(value, tuple | list):
        for one in value:
            yield from _operations(one)
        return
    if isinstance(value, UniformRange):
        yield value.operation, float(np.abs(value.strengths(np.array([value.low, value.high]))).max())
        return
    if not is_dataclass(value):
        return
    held = {field.name: getattr(value, field.name) for field in fields(value)}
    # A policy that names no magnitude is taken at its word: it may be any.
    magnitude = float(held.get("magnitude", held.get("max_magnitude", 1.0)))
    named: list[str] = ["stain_jitter"] if isinstance(value, StainJitter) else []
    named += [held["operation"]] if "operation" in held else []
    named += [operation.name for operation in select_operations(held["operations"])] if "operations" in held else []
    for name in named:
        yield name, magnitude * OPERATIONS[name].limit
    for one in held.values():
        yield from _operations(one)


def _severity(family: CorruptionFamily, level: float) -> float:
    """The severity a level stands for; 0 below the mildest."""
    levels = np.array(family.levels, dtype=float)
    if levels[0] > levels[-1]:
        levels, level = -levels, -level
    return 0.0 if level < levels[0] else float(np.interp(level, levels, SEVERITIES))


def trained_severities(policies: Iterable[Policy]) -> tuple[TrainingCoverage, ...]:
    """How far any of these policies rehearses each family, in the order of ``FAMILIES``; families none does are left out.

    ``combined_shift`` never is: whether what was learnt of each cause holds when all are at work is the question.
    """
    strongest: dict[str, float] = {}
    for policy in policies:
        for name, strength in strongest_strengths(policy).items():
            strongest[name] = max(strongest.get(name, 0.0), strength)
    by_name = {family.name: family for family in FAMILIES}
    reached = dict.fromkeys(by_name, 0.0)
    for overlap in OVERLAPS:
        strength = strongest.get(overlap.operation, 0.0)
        if strength > 0:
            level = overlap.level(strength)
            reached[overlap.family] = max(reached[overlap.family], _severity(by_name[overlap.family], level))
    return tuple(TrainingCoverage(name, severity) for name, severity in reached.items() if severity > 0)
