"""Simulated sites: several shift factors at once, the same for all images of a site.

The suite's group ``combined`` draws shift factors anew for every image, so its mean accuracy hardly varies. A real site is one
draw that all its images share; what to expect of the next one can only be estimated from a population of such draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bloodauto.shift.corruptions import FAMILIES, SEVERITIES, SHIFT_FACTORS, CorruptionFamily
from bloodauto.types import Images, check_images

#: The families of each shift factor, of which a site has one at most.
FAMILIES_OF_FACTORS: tuple[tuple[CorruptionFamily, ...], ...] = tuple(
    tuple(family for family in FAMILIES if family.factor == factor) for factor in SHIFT_FACTORS
)
#: With fewer shift factors a site is another day in the same laboratory.
MIN_SHIFT_FACTORS = 3
#: The largest fraction of a site's images with artefacts: with more, the slide would be prepared again.
_MAX_ARTEFACT_RATE = 0.5
#: Artefacts and noise differ from image to image; stain, lamp, focus and magnification are those of the site.
_GROUPS_DRAWN_PER_IMAGE = ("artefacts", "sensor")


@dataclass(frozen=True)
class SimulatedSite:
    """One simulated site.

    Attributes:
        families: The shifts, in the order of application; at most one of each shift factor.
        severities: The severity of each, 1 to 5, any number between.
        artefact_rate: The fraction of its images, 0-1, with artefacts.
        seed: What directions, positions and noise derive from.
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
        """The mean of the severities, 1 to 5."""
        return float(np.mean(self.severities))

    def render(self, images: Images) -> Images:
        """The images as this site would have acquired them.

        Args:
            images: uint8 (n, height, width, 3), RGB.

        Returns:
            uint8 (n, height, width, 3), a new array; image ``i`` depends on its pixels and on ``i`` alone.

        Raises:
            DataError: The images are no such array.
        """
        check_images(images, "simulated site")
        rendered = np.empty_like(images)
        for index, original in enumerate(images):
            image = original
            for family, severity in zip(self.families, self.severities, strict=True):
                key = [self.seed, family.random_key]
                rng = np.random.default_rng([*key, 1 + index] if family.group in _GROUPS_DRAWN_PER_IMAGE else key)
                if family.group == "artefacts" and rng.random() >= self.artefact_rate:
                    continue
                image = family.corrupt(image, family.level_at(severity), rng)
            rendered[index] = image
        return rendered


def draw_simulated_sites(count: int, *, seed: int) -> tuple[SimulatedSite, ...]:
    """Draws simulated sites.

    A site has ``MIN_SHIFT_FACTORS`` to all shift factors, each number equally often, and a severity for each.

    Args:
        count: How many; the first sites of a longer draw are those of a shorter one.
        seed: 0 or more.

    Returns:
        The sites.

    Example:
        >>> [len(site.families) for site in draw_simulated_sites(8, seed=0)]
        [3, 4, 5, 6, 7, 8, 9, 3]
    """
    sites = []
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        num_factors = MIN_SHIFT_FACTORS + number % (len(SHIFT_FACTORS) - MIN_SHIFT_FACTORS + 1)
        factors = np.sort(rng.permutation(len(SHIFT_FACTORS))[:num_factors]).tolist()
        families = tuple(
            FAMILIES_OF_FACTORS[factor][int(rng.integers(len(FAMILIES_OF_FACTORS[factor])))] for factor in factors
        )
        severities = tuple(rng.uniform(SEVERITIES[0], SEVERITIES[-1], num_factors).tolist())
        artefact_rate = float(rng.uniform(0, _MAX_ARTEFACT_RATE))
        sites.append(SimulatedSite(families, severities, artefact_rate, int(rng.integers(2**31))))
    return tuple(sites)
