"""The sample by which an exported file is compared with the search: images and the predictions of the search."""

from __future__ import annotations

from dataclasses import dataclass

from bloodauto.types import Images, Probabilities


@dataclass(frozen=True)
class ParitySample:
    """Images and what the search itself predicted for them.

    Attributes:
        images: uint8, (n, height, width, 3), n at least 1.
        probabilities: float, (n, classes), of the weighted and calibrated ensemble.
        tolerance: largest difference of a probability that passes. 1e-4 allows for another order of summation; networks
            that were trained in 16-bit precision need about 2e-2, because an export computes in 32 bits.
    """

    images: Images
    probabilities: Probabilities
    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        assert len(self.images), "parity: expected at least one image"
        assert len(self.images) == len(self.probabilities), "parity: expected probabilities for every image"
