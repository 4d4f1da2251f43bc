"""Compound shifts: whole laboratories drawn at random, each with several causes that are the same for all its images.

The suite's ``laboratory`` group draws causes anew for every image, so its mean accuracy hardly varies; a real laboratory
is one draw that all its images share. What to expect of the next one can only be said from a population of such draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bloodauto.shift.corruptions.family import SEVERITIES, CorruptionFamily
from bloodauto.shift.corruptions.registry import FAMILIES
from bloodauto.types import check_images

#: What may differ, in the order in which it happens to a slide on its way to a file; one family of a line at a time. Stain
#: and light have lines of their own for amount, hue and camera, because these come from different things.
SHIFT_FACTORS: tuple[tuple[CorruptionFamily, ...], ...] = tuple(
    tuple(family for family in FAMILIES if family.group == group and (family.name in tinted) == tints)
    for group, tinted, tints in (
        ("geometry", (), False),
        ("stain", ("stain_hue", "background_colour"), False),
        ("stain", ("stain_hue", "background_colour"), True),
        ("artefacts", (), False),
        ("light", ("colour_temperature", "saturation", "camera"), False),
        ("light", ("colour_temperature", "saturation"), True),
        ("light", ("camera",), True),
        ("optics", (), False),
        ("sensor", (), False),
    )
)
#: What differs in one or two things is another day in the same laboratory.
MIN_SHIFT_FACTORS = 3
#: Largest share of a place's images with dirt on them: where it were more, the slide would be made again.
_MAX_ARTEFACT_RATE = 0.5
#: Dirt and noise fall elsewhere on every image; stain, lamp, focus and magnification are those of the place.
_DRAWN_PER_IMAGE = ("artefacts", "sensor")


@dataclass(frozen=True)
class SimulatedSite:
    """One drawn laboratory.

    Attributes:
        families: what differs from the training images, in the order of application; one of each of ``CAUSES`` at most.
        severities: of each of them, 1 to 5, any number between.
        artefact_rate: share of its images, 0-1, on which artefacts lie; no place has dirt over every cell.
        seed: what directions, positions and noise derive from.
    """

    families: tuple[CorruptionFamily, ...]
    severities: tuple[float, ...]
    artefact_rate: float
    seed: int

    def __post_init__(self) -> None:
        assert len(self.severities) == len(self.families), f"{len(self.severities)} severities for {self.families}"

    @property
    def groups(self) -> tuple[str, ...]:
        """The families' groups, each once, in the order of ``families``."""
        return tuple(dict.fromkeys(family.group for family in self.families))

    @property
    def mean_severity(self) -> float:
        """Of all causes, 1 to 5."""
        return float(np.mean(self.severities))

    def render(self, images: np.ndarray) -> np.ndarray:
        """The images as this laboratory would have taken them.

        Args:
            images: uint8, (n, height, width, 3), RGB.

        Returns:
            uint8, (n, height, width, 3), a new array; image ``i`` depends on its pixels and on ``i`` alone.

        Raises:
            DataError: the images are no such array.
        """
        check_images(images, "simulated site")
        rendered = np.empty_like(images)
        for index, image in enumerate(images):
            for family, severity in zip(self.families, self.severities, strict=True):
                key = [self.seed, family.random_key]
                rng = np.random.default_rng([*key, 1 + index] if family.group in _DRAWN_PER_IMAGE else key)
                if family.group == "artefacts" and rng.random() >= self.artefact_rate:
                    continue
                image = family.corrupt(image, family.level_at(severity), rng)
            rendered[index] = image
        return rendered


def draw_simulated_sites(count: int, *, seed: int) -> tuple[SimulatedSite, ...]:
    """Draws laboratories: ``MIN_SHIFT_FACTORS`` to all of ``CAUSES``, each number equally often, each with a severity of its own.

    Args:
        count: how many; the first ones of a longer draw are those of a shorter one.
        seed: 0 or more.
    """
    shifts = []
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        causes = MIN_SHIFT_FACTORS + number % (len(SHIFT_FACTORS) - MIN_SHIFT_FACTORS + 1)
        chosen = np.sort(rng.permutation(len(SHIFT_FACTORS))[:causes])
        families = tuple(SHIFT_FACTORS[cause][int(rng.integers(len(SHIFT_FACTORS[cause])))] for cause in chosen)
        severities = tuple(rng.uniform(SEVERITIES[0], SEVERITIES[-1], causes).tolist())
        artefact_rate = float(rng.uniform(0, _MAX_ARTEFACT_RATE))
        shifts.append(SimulatedSite(families, severities, artefact_rate, int(rng.integers(2**31))))
    return tuple(shifts)
