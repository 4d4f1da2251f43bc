"""The shift suite: fixed, seeded corruptions of validation images that stand for another site."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodauto.errors import DataError, RecipeError
from bloodauto.shift.corruptions import FAMILIES, GROUPS, CorruptionFamily, find_family
from bloodauto.shift.overlap import TrainingCoverage
from bloodauto.types import Images, Labels, Rows, Scores, check_images

#: Severities that recipes are compared by. Mild shifts, which all of them classify correctly, tell none from another.
SEARCH_SEVERITIES = (3, 4, 5)
#: The group in which all shift factors act at once. Of all groups it ranks recipes most as another site does, so it has this
#: weight in the objective, and so many times the images of any other group.
COMBINED = "combined"
COMBINED_WEIGHT = 0.5
_COMBINED_IMAGES_RATIO = 4
#: The weight of a shifted image that training of some recipe of the search covers; any other has the weight 1.
COVERED_WEIGHT = 0.25


@dataclass(frozen=True)
class ShiftPlan:
    """The shifted images of a suite: a row for each, that names validation image, family and severity; no pixels yet.

    A plan depends only on the labels and the suite's settings; rendering depends only on the row and its image. So any
    two trials see the same bytes, whatever the batch size, the order, or the number of threads.

    Attributes:
        seed: What directions, positions and noise derive from.
        families: The families that rows refer to.
        family_index: int64 (m,), indices into ``families``; rows of a group are contiguous, in the order of GROUPS.
        severities: int64 (m,), 1 to 5.
        image_index: int64 (m,), indices into the validation images.
        weights: float64 (m,), 0 or more, the weight of each shifted image.
        num_validation_images: How many images the plan was drawn for.
    """

    seed: int
    families: tuple[CorruptionFamily, ...]
    family_index: NDArray[np.int64]
    severities: NDArray[np.int64]
    image_index: NDArray[np.int64]
    weights: Scores
    num_validation_images: int

    def __len__(self) -> int:
        return len(self.image_index)

    @property
    def family_names(self) -> NDArray[np.str_]:
        """Name of the family of each row, str (m,)."""
        return np.array([family.name for family in self.families])[self.family_index]

    @property
    def group_names(self) -> NDArray[np.str_]:
        """Name of the group of each row, str (m,)."""
        return np.array([family.group for family in self.families])[self.family_index]

    def select(self, rows: Rows | NDArray[np.bool_]) -> ShiftPlan:
        """The plan of some rows, in that order; they render to the same bytes."""
        return replace(
            self,
            family_index=self.family_index[rows],
            severities=self.severities[rows],
            image_index=self.image_index[rows],
            weights=self.weights[rows],
        )

    def render(self, images: Images, rows: Rows | slice = slice(None)) -> Images:
        """Makes the shifted images of some rows.

        Args:
            images: All validation images, uint8 (n, height, width, 3), in the order of the plan's labels.
            rows: Which rows; all by default.

        Returns:
            uint8 (len(rows), height, width, 3).

        Raises:
            DataError: The images are not uint8 (n, height, width, 3) with the n of the plan.
        """
        check_images(images, "shift suite")
        if len(images) != self.num_validation_images:
            raise DataError(
                f"shift suite: expected the {self.num_validation_images} validation images the plan was drawn for, "
                f"got {len(images)}. Pass all of them; the plan takes its subsample itself."
            )
        selected = np.arange(len(self))[rows].tolist()
        shifted_images = np.empty((len(selected), *images.shape[1:]), np.uint8)
        for target, row in zip(shifted_images, selected, strict=True):
            family = self.families[self.family_index[row]]
            image_index = int(self.image_index[row])
            # Severity is no part of the key: the same noise and position at every severity make them comparable.
            rng = np.random.default_rng([self.seed, image_index, family.random_key])
            target[:] = family.apply(images[image_index], int(self.severities[row]), rng)
        return shifted_images


@dataclass(frozen=True)
class ShiftSuite:
    """Settings that the shifted images of a search are drawn from.

    Neither the shifted images nor their weights change between the trials of a search: scores under different weights would be
    means over different populations. What *some* recipe of the search's space may train on therefore counts less for all of
    them (``covered_by_training``, from ``overlap.training_coverage``).

    Attributes:
        seed: Two suites of equal settings give byte-identical shifted images of the same images.
        num_images: At most this many validation images are shown in the group ``combined``, and a quarter of them in each
            other group; 512 keep the plan at 1,280 shifted images.
        exclude_families: Names of families that are not used, such as those held out to evaluate the search.
        covered_by_training: What recipes may train on.
        covered_weight: The weight of shifted images that training covers, 0-1; all others have the weight 1.

    Raises:
        RecipeError: A number is out of range, a name is no family's, or no family remains.

    Example:
        >>> labels = np.arange(100) % 5
        >>> plan = ShiftSuite(seed=0, num_images=40).plan(labels)
        >>> plan.render(np.zeros((100, 32, 32, 3), np.uint8)).shape
        (100, 32, 32, 3)
    """

    seed: int
    num_images: int = 512
    exclude_families: tuple[str, ...] = ()
    covered_by_training: tuple[TrainingCoverage, ...] = ()
    covered_weight: float = COVERED_WEIGHT

    def __post_init__(self) -> None:
        if not 0 <= self.covered_weight <= 1:
            raise RecipeError(f"shift suite: expected a covered_weight of 0 to 1, got {self.covered_weight}.")
        for coverage in self.covered_by_training:
            find_family(coverage.family)
        if self.num_images < 1:
            raise RecipeError(f"shift suite: expected num_images of at least 1, got {self.num_images}.")
        if self.seed < 0:
            raise RecipeError(f"shift suite: expected a seed of at least 0, got {self.seed}.")
        for name in self.exclude_families:
            find_family(name)
        if not self.families:
            raise RecipeError("shift suite: expected at least one family, but all are excluded.")

    @property
    def families(self) -> tuple[CorruptionFamily, ...]:
        """The families in use, in the order of ``FAMILIES``."""
        return tuple(family for family in FAMILIES if family.name not in self.exclude_families)

    def plan(self, labels: Labels) -> ShiftPlan:
        """Draws one shifted image for each image of a group's subsample, at ``SEARCH_SEVERITIES``.

        In each group every combination of family and severity occurs equally often, to within one, and so it does for each
        class: the shuffled combinations are assigned to the images in the order of their classes. The variance of a group's
        score falls with its images, so the group with the largest weight has most.

        Args:
            labels: int (n,), of all validation images.

        Returns:
            The plan.

        Raises:
            DataError: The labels are not a non-empty one-dimensional integer array.
        """
        combined_images = self.subsample(labels, self.num_images)
        other_images = self.subsample(labels, -(-self.num_images // _COMBINED_IMAGES_RATIO))
        rows = []
        for group_number, group in enumerate(GROUPS):
            members = [index for index, family in enumerate(self.families) if family.group == group]
            if not members:
                continue
            images = combined_images if group == COMBINED else other_images
            rng = np.random.default_rng([self.seed, 1, group_number])
            combinations = np.array([(index, severity) for index in members for severity in SEARCH_SEVERITIES])
            repeats = -(-len(images) // len(combinations))
            assigned = np.concatenate([rng.permutation(combinations) for _ in range(repeats)])[: len(images)]
            rows.append(np.column_stack([assigned, images]))
        return self.plan_of(np.concatenate(rows), len(labels))

    def plan_of(self, rows: NDArray[Any], num_validation_images: int) -> ShiftPlan:
        """The plan of chosen rows, with this suite's weights.

        Args:
            rows: int (m, 3): index into ``families``, severity, index of the validation image.
            num_validation_images: How many validation images there are.

        Returns:
            The plan.
        """
        family_index, severities, image_index = rows.T.astype(np.int64)
        covered = {coverage.family: coverage.severity for coverage in self.covered_by_training}
        limits = np.array([covered.get(family.name, 0.0) for family in self.families])
        weights = np.where(severities <= limits[family_index], self.covered_weight, 1.0)
        weights = self._with_combined_weight(weights, family_index)
        return ShiftPlan(
            self.seed, self.families, family_index, severities, image_index, weights, num_validation_images
        )

    def subsample(self, labels: Labels, count: int) -> Rows:
        """Draws images, as many of each class as of any other.

        Balanced accuracy is then measured with the least variance. A rare class gives all its images, and the other classes
        fill up.

        Args:
            labels: int (n,), of all validation images.
            count: The most images that are drawn.

        Returns:
            int64 (at most count,), indices of the images, class after class, in random order within a class.

        Raises:
            DataError: The labels are not a non-empty one-dimensional integer array.
        """
        labels = np.asarray(labels)
        if labels.ndim != 1 or len(labels) == 0 or not np.issubdtype(labels.dtype, np.integer):
            raise DataError(
                f"shift suite: expected labels as integers (n,), n >= 1, got {labels.dtype} {labels.shape}."
            )
        rng = np.random.default_rng([self.seed, 0])
        by_class = [rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
        # Rank of each image within its class; the lowest ranks over all classes are equally many of each.
        ranks = np.concatenate([np.arange(len(members)) for members in by_class])
        tie_breaks = rng.random(len(ranks))
        kept = np.sort(np.lexsort((tie_breaks, ranks))[:count])
        return np.concatenate(by_class)[kept]

    def _with_combined_weight(self, weights: Scores, family_index: NDArray[np.int64]) -> Scores:
        """Raises the weights of the group ``combined`` so that it has ``COMBINED_WEIGHT`` in the objective."""
        groups = np.array([family.group for family in self.families])[family_index]
        combined = groups == COMBINED
        means = [weights[groups == group].mean() for group in dict.fromkeys(groups[~combined].tolist())]
        # The clean images have the weight 1.
        other_weight = 1.0 + sum(means)
        return np.where(combined, COMBINED_WEIGHT / (1 - COMBINED_WEIGHT) * other_weight, weights)
