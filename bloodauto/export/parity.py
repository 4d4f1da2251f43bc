"""Parity: whether an exported file predicts what the search predicted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bloodauto.errors import RunError
from bloodauto.types import Images, Labels, Probabilities


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


def check_probabilities(file_name: str, probabilities: Probabilities, sample: ParitySample) -> float:
    """Compares the class probabilities of an exported file with those of the search.

    Args:
        file_name: of the file, for the message.
        probabilities: float, (n, classes), what it predicts for the sample's images.
        sample: what the search predicts.

    Returns:
        The largest difference of a probability.

    Raises:
        RunError: it is above the tolerance or not a number, or the shapes differ.
    """
    expected = sample.probabilities
    if probabilities.shape != expected.shape:
        raise RunError(
            f"{file_name}: expected probabilities of shape {expected.shape}, got {probabilities.shape}. "
            "The export and the run do not belong together; export again."
        )
    differences = np.abs(probabilities.astype(np.float64) - expected).max(axis=1)
    worst = int(differences.argmax())
    # Written so that a difference which is not a number fails too.
    if not differences[worst] <= sample.tolerance:
        raise RunError(
            f"{file_name}: expected the probabilities of the search within {sample.tolerance:g}, but image {worst} differs "
            f"by {differences[worst]:.3g} (search: class {expected[worst].argmax()} with {expected[worst].max():.4f}; file: "
            f"class {probabilities[worst].argmax()} with {probabilities[worst].max():.4f}). Do not use this file; check that "
            "members, weights and temperature are those of the run, and export again."
        )
    return float(differences[worst])


def check_labels(file_name: str, labels: Labels, label_of_output: Labels, sample: ParitySample) -> None:
    """Compares the labels of an exported file with those of the search.

    Images whose two highest probabilities are closer than twice the tolerance may get either label and are not compared.

    Args:
        file_name: of the file, for the message.
        labels: int, (n,), what it predicts for the sample's images.
        label_of_output: int, (classes,), the label that stands for each output.
        sample: what the search predicts.

    Raises:
        RunError: a label differs.
    """
    expected = label_of_output[sample.probabilities.argmax(axis=1)]
    ascending = np.sort(sample.probabilities, axis=1)
    is_clear = ascending[:, -1] - ascending[:, -2] > 2 * sample.tolerance
    wrong = np.flatnonzero(is_clear & (labels != expected))
    if len(wrong):
        raise RunError(
            f"{file_name}: expected the labels of the search, but {len(wrong)} of {len(expected)} differ; image {wrong[0]}: "
            f"label {labels[wrong[0]]} instead of {expected[wrong[0]]}. Do not use this file; export again."
        )
