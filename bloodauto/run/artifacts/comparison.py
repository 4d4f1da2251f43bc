"""The files of a comparison: what is compared, and how the budget is divided."""

from __future__ import annotations

from bloodauto.run.artifacts.base import Artifact, Count, Seconds


class ComparisonRecord(Artifact):
    """``comparison.json``: what a comparison was started with; a resume must be given the same.

    Attributes:
        settings: of the comparison, without the folder of weights, which may have moved.
        images: how many images are used.
        digest: SHA-256 of these images.
        variants: recipe id of each variant by name.
    """

    FILE = "comparison.json"

    settings: dict[str, str | int | float | bool | None]
    images: Count
    digest: str
    variants: dict[str, str]


class TimeAllocation(Artifact):
    """``time_allocation.json``: wall seconds of a comparison with a budget.

    Attributes:
        training_seconds: of each variant's training.
        evaluation_seconds: of evaluating one network on all validation images.
        measurement_seconds: spent on measuring these times.
        overhead_seconds: of building and evaluating, for each variant.
    """

    FILE = "time_allocation.json"

    training_seconds: Seconds
    evaluation_seconds: Seconds
    measurement_seconds: Seconds
    overhead_seconds: tuple[Seconds, ...]
