"""Another laboratory: stain, light, optics, sensor and magnification all differ at once.

One cause at a time says too little about another laboratory, where every cause has moved a little and none is alone.
"""

from __future__ import annotations

import numpy as np

from bloodauto.shift.corruptions import geometry, light, optics, sensor, stain
from bloodauto.shift.corruptions.family import CorruptionFamily

#: What differs, in the order in which it happens to a slide; ``scale`` stands for the magnification.
_SHIFT_FACTORS: tuple[tuple[CorruptionFamily, ...], ...] = (
    tuple(family for family in geometry.FAMILIES if family.name in ("scale", "rotation")),
    tuple(family for family in stain.FAMILIES if family.name != "background_colour"),
    tuple(family for family in stain.FAMILIES if family.name in ("stain_hue", "background_colour")),
    tuple(family for family in light.FAMILIES if family.name in ("brightness", "contrast", "gamma")),
    tuple(family for family in light.FAMILIES if family.name in ("colour_temperature", "saturation")),
    tuple(family for family in light.FAMILIES if family.name == "camera"),
    (*optics.FAMILIES, *(family for family in sensor.FAMILIES if family.name in ("resolution", "jpeg"))),
)


def _combined_shift(image: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    for families in _SHIFT_FACTORS:
        family = families[int(rng.integers(len(families)))]
        image = family.corrupt(image, family.level_at(level), rng)
    return image


FAMILIES = (
    CorruptionFamily(
        "combined_shift",
        "combined",
        "severity of seven causes at once: magnification, dyes, hue, exposure, lamp, camera, sharpness",
        (1.0, 1.5, 2.0, 2.6, 3.2),
        "Ours: one family drawn from each cause; combined shifts as in Tellez et al., arXiv:1902.06543.",
        _combined_shift,
        # Under this key the recorded scores of the suite were made.
        fixed_random_key=4_159_370_259,
    ),
)
