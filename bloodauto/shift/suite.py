"""The shift suite: fixed, seeded views of validation images that stand for another laboratory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bloodauto.errors import DataError, RecipeError
from bloodauto.shift.corruptions.family import GROUPS, SEVERITIES, CorruptionFamily, TrainingCoverage
from bloodauto.shift.corruptions.registry import FAMILIES, find_family
from bloodauto.types import check_images

#: Severities of the thorough plan: mild enough to be met in practice, harsh enough to tell recipes apart.
EXHAUSTIVE_SEVERITIES = (2, 3, 4)
#: Severities that recipes are compared by. What all of them get right, and mild shifts are that, tells none from another.
SEARCH_SEVERITIES = (3, 4, 5)
#: The group in which all causes are at work at once; of all groups it ranks recipes most as another laboratory does, so it
#: counts this share of the objective, and is shown in so many times the views of any other.
COMBINED = "combined"
COMBINED_WEIGHT = 0.5
_COMBINED_IMAGES_RATIO = 4
#: What a view counts whose question some recipe of the search may have trained on; one that none can counts 1.
COVERED_WEIGHT = 0.25


@dataclass(frozen=True)
class ShiftedImages:
    """Some rows of a plan, rendered.

    Attributes:
        group: the cause of shift that all rows share.
        families: str, (m,), the family of each row.
        severities: int64, (m,), 1 to 5.
        image_index: int64, (m,), which validation image each row shows.
        images: uint8, (m, height, width, 3).
    """

    group: str
    families: np.ndarray
    severities: np.ndarray
    image_index: np.ndarray
    images: np.ndarray


@dataclass(frozen=True)
class ShiftPlan:
    """Which validation image is shown in which family at which severity: one row per view, no pixels yet.

    A plan depends only on the labels and the suite's settings; rendering depends only on the row and its image. So any
    two trials see the same bytes, whatever the batch size, the order, or the number of threads.

    Attributes:
        seed: what directions, positions and noise derive from.
        families: the families that rows refer to.
        family_index: int64, (m,), indices into ``families``; rows of one group stand together, in the order of GROUPS.
        severities: int64, (m,), 1 to 5.
        image_index: int64, (m,), indices into the validation images.
        weights: float64, (m,), 0 or more, what each view counts.
        num_validation_images: how many images the plan was drawn for.
    """

    seed: int
    families: tuple[CorruptionFamily, ...]
    family_index: np.ndarray
    severities: np.ndarray
    image_index: np.ndarray
    weights: np.ndarray
    num_validation_images: int

    def __len__(self) -> int:
        return len(self.image_index)

    @property
    def family_names(self) -> np.ndarray:
        """str, (m,), the family of each row."""
        return np.array([family.name for family in self.families])[self.family_index]

    @property
    def group_names(self) -> np.ndarray:
        """str, (m,), the cause of each row's shift."""
        return np.array([family.group for family in self.families])[self.family_index]

    def select(self, rows: np.ndarray) -> ShiftPlan:
        """The plan of some rows, in that order; they render to the same bytes."""
        return replace(
            self,
            family_index=self.family_index[rows],
            severities=self.severities[rows],
            image_index=self.image_index[rows],
            weights=self.weights[rows],
        )

    def render(self, images: np.ndarray, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Makes the views of some rows.

        Args:
            images: all validation images, uint8 (n, height, width, 3), in the order of the plan's labels.
            rows: which rows; all by default.

        Returns:
            uint8, (len(rows), height, width, 3).

        Raises:
            DataError: the images are not uint8 (n, height, width, 3) with the n of the plan.
        """
        self._check(images)
        chosen = np.arange(len(self))[rows]
        shifted_images = np.empty((len(chosen), *images.shape[1:]), np.uint8)
        for place, row in enumerate(chosen.tolist()):
            family = self.families[self.family_index[row]]
            image_index = int(self.image_index[row])
            # Severity stays out of the key: the same noise and position at every severity make them comparable.
            rng = np.random.default_rng([self.seed, image_index, family.random_key])
            shifted_images[place] = family.apply(images[image_index], int(self.severities[row]), rng)
        return shifted_images

    def shifted_images(self, images: np.ndarray) -> Iterator[ShiftedImages]:
        """Renders group by group, so that only one group's pixels need to be in memory. Raises as ``render``."""
        self._check(images)
        groups, names = self.group_names, self.family_names
        for group in GROUPS:
            rows = np.flatnonzero(groups == group)
            if len(rows):
                yield ShiftedImages(
                    group, names[rows], self.severities[rows], self.image_index[rows], self.render(images, rows)
                )

    def _check(self, images: np.ndarray) -> None:
        check_images(images, "shift suite")
        if len(images) != self.num_validation_images:
            raise DataError(
                f"shift suite: expected the {self.num_validation_images} validation images the plan was drawn for, "
                f"got {len(images)}. Pass all of them; the plan takes its subsample itself."
            )


@dataclass(frozen=True)
class ShiftSuite:
    """Settings from which the views of a search are drawn.

    Neither the views nor their weights change between the trials of a search: scores under different weights would be
    means over different questions. What *some* recipe of the search's space may train on therefore counts less for all
    of them (``seen``, from ``overlap.trained_severities``); families held back to judge the search are excluded.

    Attributes:
        seed: two suites of equal settings give byte-identical views of the same images.
        num_images: at most this many validation images are shown as another laboratory would, and a quarter of them in each
            other group; 512 keep the plan at 1,280 views.
        exclude_families: names of families that no view uses.
        seen: what recipes may train on; its views count ``covered_weight``, all others 1.
        covered_weight: 0 leaves out what may be trained on, 1 makes no difference.

    Raises:
        RecipeError: a number is out of range, a name is no family's, or no family is left.
    """

    seed: int
    num_images: int = 512
    exclude_families: tuple[str, ...] = ()
    covered_by_training: tuple[TrainingCoverage, ...] = ()
    covered_weight: float = COVERED_WEIGHT

    def __post_init__(self) -> None:
        if not 0 <= self.covered_weight <= 1:
            raise RecipeError(f"shift suite: expected a covered_weight of 0 to 1, got {self.covered_weight}.")
        for one in self.covered_by_training:
            find_family(one.family)
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

    def plan(self, labels: np.ndarray) -> ShiftPlan:
        """One view per image of a group's subsample, at ``SEARCH_SEVERITIES``.

        Families and severities of a group are dealt like cards to the images in the order of their classes: every
        combination comes equally often, to within one, and no class gets more of the harsh ones than another. A group's
        share of the objective's noise falls with its views, so the one that counts most has most.

        Args:
            labels: integers, (n,), of all validation images.

        Raises:
            DataError: the labels are not a non-empty one-dimensional integer array.
        """
        every = self._subsample(labels, self.num_images)
        few = self._subsample(labels, -(-self.num_images // _COMBINED_IMAGES_RATIO))
        columns = []
        for group_number, group in enumerate(GROUPS):
            members = [index for index, family in enumerate(self.families) if family.group == group]
            if not members:
                continue
            order = every if group == COMBINED else few
            rng = np.random.default_rng([self.seed, 1, group_number])
            deck = np.array([(index, severity) for index in members for severity in SEARCH_SEVERITIES])
            decks = -(-len(order) // len(deck))
            dealt = np.concatenate([rng.permutation(deck) for _ in range(decks)])[: len(order)]
            columns.append(np.column_stack([dealt, order]))
        return self._plan_of(np.concatenate(columns), len(labels))

    def exhaustive_plan(self, labels: np.ndarray, severities: Sequence[int] = EXHAUSTIVE_SEVERITIES) -> ShiftPlan:
        """Every family at every one of ``severities`` on the whole subsample: for the final report, not for trials.

        Raises:
            DataError: the labels are not a non-empty one-dimensional integer array.
            RecipeError: a severity is none of 1 to 5.
        """
        unknown = set(severities) - set(SEVERITIES)
        if unknown or not severities:
            raise RecipeError(f"shift suite: expected severities of {SEVERITIES}, got {tuple(severities)}.")
        order = self._subsample(labels, self.num_images)
        combinations = [(index, severity) for index in range(len(self.families)) for severity in severities]
        rows = np.concatenate(
            [np.column_stack([np.tile(combination, (len(order), 1)), order]) for combination in combinations]
        )
        return self._plan_of(rows, len(labels))

    def shifted_images(self, images: np.ndarray, labels: np.ndarray) -> Iterator[ShiftedImages]:
        """``plan(labels)``, rendered group by group."""
        return self.plan(labels).shifted_images(images)

    def _plan_of(self, rows: np.ndarray, num_validation_images: int) -> ShiftPlan:
        family_index, severities, image_index = rows.T.astype(np.int64)
        reached = {one.family: one.severity for one in self.covered_by_training}
        limits = np.array([reached.get(family.name, 0.0) for family in self.families])
        weights = np.where(severities <= limits[family_index], self.covered_weight, 1.0)
        weights = self._with_combined_weight(weights, family_index)
        return ShiftPlan(
            self.seed, self.families, family_index, severities, image_index, weights, num_validation_images
        )

    def _with_combined_weight(self, weights: np.ndarray, family_index: np.ndarray) -> np.ndarray:
        """Raises what views of the laboratory group count so that it comes to its share; see ``score.score``."""
        groups = np.array([family.group for family in self.families])[family_index]
        ours = groups == COMBINED
        means = [weights[groups == group].mean() for group in dict.fromkeys(groups[~ours].tolist())]
        # The clean images count 1.
        of_others = 1.0 + sum(means)
        return np.where(ours, COMBINED_WEIGHT / (1 - COMBINED_WEIGHT) * of_others, weights)

    def _subsample(self, labels: np.ndarray, count: int) -> np.ndarray:
        """Indices of the images shown, class after class, random within a class.

        As many of each class as of any other, as far as they go: balanced accuracy is then measured with the least
        variance. A rare class gives all it has, and the rest is shared among the others.
        """
        labels = np.asarray(labels)
        if labels.ndim != 1 or len(labels) == 0 or not np.issubdtype(labels.dtype, np.integer):
            raise DataError(
                f"shift suite: expected labels as integers (n,), n >= 1, got {labels.dtype} {labels.shape}."
            )
        rng = np.random.default_rng([self.seed, 0])
        by_class = [rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
        # Rank of each image within its class; the lowest ranks over all classes are an equal share of each.
        ranks = np.concatenate([np.arange(len(members)) for members in by_class])
        tie_breaks = rng.random(len(ranks))
        kept = np.sort(np.lexsort((tie_breaks, ranks))[:count])
        return np.concatenate(by_class)[kept]
