"""Another site: stain, light, camera, optics, sensor and magnification all differ at once.

A single shift factor predicts little of the accuracy at another site, where every factor differs somewhat and none is alone.
"""

from __future__ import annotations

import numpy as np

from bloodauto.shift.corruptions.registry import REGISTERED, corruption_family
from bloodauto.types import Image

#: For each shift factor, in the order in which it happens to a slide, the families that one is drawn from; ``scale`` stands
#: for the magnification. Families that are added elsewhere do not enter, so that scores stay comparable.
COMBINED_FACTORS: tuple[tuple[str, ...], ...] = (
    ("rotation", "scale"),
    ("blue_stain_intensity", "eosin_intensity", "staining_time", "stain_hue"),
    ("stain_hue", "background_colour"),
    ("brightness", "contrast", "gamma"),
    ("colour_temperature", "saturation"),
    ("camera",),
    ("defocus", "motion", "jpeg", "resolution"),
)


@corruption_family(
    "combined_shift",
    group="combined",
    factor=None,
    unit="severity of seven factors at once: magnification, dyes, hue, exposure, lamp, camera, sharpness",
    levels=(1.0, 1.5, 2.0, 2.6, 3.2),
    source="Ours: one family drawn from each factor; combined shifts as in Tellez et al., arXiv:1902.06543.",
    # The recorded scores of the suite were measured under this key.
    fixed_random_key=4_159_370_259,
)
def _combined_shift(image: Image, level: float, rng: np.random.Generator) -> Image:
    for names in COMBINED_FACTORS:
        family = REGISTERED[names[int(rng.integers(len(names)))]]
        image = family.corrupt(image, family.level_at(level), rng)
    return image
