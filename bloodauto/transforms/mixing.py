"""Batch mixing: MixUp and CutMix join each image with another one of its batch, and their labels with them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import cv2
import numpy as np

from bloodauto.errors import DataError, RecipeError
from bloodauto.transforms.policies import check_fraction
from bloodauto.types import check_images


@dataclass(frozen=True)
class Pairing:
    """What each image of a batch is joined with.

    Attributes:
        partner: int (n,), index of the other image; its own for an image that stays as it is.
        kept: float64 (n,), the share of the label that is the image's own.
        boxes: int (n, 4), top, bottom, left, right of the part taken from the partner; an image whose box is empty is
            blended with its partner by ``kept`` instead. None where all are.
    """

    partner: np.ndarray
    own_weight: np.ndarray
    boxes: np.ndarray | None


def mix_images(images: np.ndarray, pairing: Pairing) -> np.ndarray:
    """Joins uint8 (n, height, width, 3) as drawn; a new array."""
    boxes = np.zeros((len(images), 4), np.int64) if pairing.boxes is None else pairing.boxes
    out = np.empty_like(images)
    for image, target, partner, own_weight, (top, bottom, left, right) in zip(
        images, out, pairing.partner.tolist(), pairing.own_weight.tolist(), boxes.tolist(), strict=True
    ):
        if top < bottom and left < right:
            np.copyto(target, image)
            target[top:bottom, left:right] = images[partner, top:bottom, left:right]
        else:
            cv2.addWeighted(image, own_weight, images[partner], 1.0 - own_weight, 0.0, dst=target)
    return out


def mix_targets(targets: np.ndarray, weights: np.ndarray, pairing: Pairing) -> tuple[np.ndarray, np.ndarray]:
    """Joins float32 (n, classes) labels and (n,) sample weights as drawn.

    Cross-entropy is linear in the label, so the weighted losses of both images are kept exactly when the weights go into
    the mix: the label is the weighted mean of both, its weight the mean of theirs.
    """
    own = pairing.own_weight * weights
    other = (1.0 - pairing.own_weight) * weights[pairing.partner]
    total = own + other
    # Where both weigh nothing any mix will do, but the label must still be a distribution.
    share = np.where(total > 0, own / np.where(total > 0, total, 1.0), pairing.own_weight)[:, None]
    mixed = share * targets + (1.0 - share) * targets[pairing.partner]
    return mixed.astype(np.float32), total.astype(np.float32)


@dataclass(frozen=True)
class Mixing(ABC):
    """Joins the images of a batch.

    Attributes:
        alpha: both parameters of the Beta distribution of the share; greater than 0.
        rate: the share of images that are joined with another, in [0, 1].
    """

    alpha: float
    rate: float = 1.0

    def __post_init__(self) -> None:
        if not (isinstance(self.alpha, (int, float)) and 0.0 < self.alpha < np.inf):
            raise RecipeError(f"alpha: expected a number above 0, got {self.alpha!r}.")
        check_fraction(self.rate, "rate")

    @abstractmethod
    def join(self, images: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, Pairing]:
        """Joins images, uint8 (n, height, width, 3), n at least 1; what was joined with what goes to :func:`mix_targets`."""

    def __call__(
        self, images: np.ndarray, targets: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draws and joins.

        Args:
            images: uint8 (n, height, width, 3); not written.
            targets: (n, classes), each row a distribution.

        Returns:
            New images, uint8, and soft labels, float32 (n, classes).

        Raises:
            DataError: arrays of other shapes.
        """
        check_images(images, type(self).__name__)
        if targets.ndim != 2 or len(targets) != len(images):
            raise DataError(
                f"{type(self).__name__}: expected targets as ({len(images)}, classes), got {targets.shape}."
            )
        mixed, pairing = self.join(images, rng)
        return mixed, mix_targets(targets, np.ones(len(images)), pairing)[0]


class DrawnMixing(Mixing):
    """Joins images as drawn."""

    @abstractmethod
    def draw(self, count: int, height: int, width: int, rng: np.random.Generator) -> Pairing:
        """Draws partners and shares for ``count`` images of the given size."""

    def join(self, images: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, Pairing]:
        pairing = self.draw(len(images), images.shape[1], images.shape[2], rng)
        return mix_images(images, pairing), pairing

    def _draw_weights(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Partners and the share of the image itself; each image draws its own share."""
        partner = rng.permutation(count)
        own_weight = rng.beta(self.alpha, self.alpha, size=count)
        mixed = rng.random(count) < self.rate
        return np.where(mixed, partner, np.arange(count)), np.where(mixed, own_weight, 1.0)


@dataclass(frozen=True)
class MixUp(DrawnMixing):
    """Blends two images and their labels (arXiv 1710.09412). The paper draws one share for a batch, we one per image."""

    alpha: float = 0.2

    def draw(self, count: int, height: int, width: int, rng: np.random.Generator) -> Pairing:
        return Pairing(*self._draw_weights(count, rng), boxes=None)


@dataclass(frozen=True)
class CutMix(DrawnMixing):
    """Replaces a rectangle by the same place of another image (arXiv 1905.04899); labels are shared by area.

    The paper draws one rectangle for a batch, we one per image.
    """

    alpha: float = 1.0

    def draw(self, count: int, height: int, width: int, rng: np.random.Generator) -> Pairing:
        partner, own_weight = self._draw_weights(count, rng)
        side = np.sqrt(1.0 - own_weight)
        boxes = np.empty((count, 4), np.int64)
        for column, length in ((0, height), (2, width)):
            middle, half = rng.random(count) * length, side * length / 2
            boxes[:, column] = np.clip(np.rint(middle - half), 0, length)
            boxes[:, column + 1] = np.clip(np.rint(middle + half), 0, length)
        area = (boxes[:, 1] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 2])
        return Pairing(partner, 1.0 - area / (height * width), boxes)


@dataclass(frozen=True)
class MixUpOrCutMix(DrawnMixing):
    """MixUp or CutMix, an even draw for each image."""

    alpha: float = 1.0

    def draw(self, count: int, height: int, width: int, rng: np.random.Generator) -> Pairing:
        blended = MixUp(self.alpha, self.rate).draw(count, height, width, rng)
        patched = CutMix(self.alpha, self.rate).draw(count, height, width, rng)
        assert patched.boxes is not None
        patch = rng.random(count) < 0.5
        return Pairing(
            np.where(patch, patched.partner, blended.partner),
            np.where(patch, patched.own_weight, blended.own_weight),
            np.where(patch[:, None], patched.boxes, 0),
        )
