"""Batch mixing: MixUp and CutMix join each image with another one of its batch, and their labels with them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodauto.config.recipe import MixingSettings
from bloodauto.errors import DataError
from bloodauto.types import Floats, Images, Rows, Scores, Targets, check_images


@dataclass(frozen=True)
class Pairing:
    """What each image of a batch is joined with.

    Attributes:
        partner: int (n,), index of the other image; an image that stays as it is has itself for a partner.
        own_weight: float64 (n,), 0-1, the weight of the image's own label.
        boxes: int (n, 4), top, bottom, left and right of the part taken from the partner; an image with an empty box is
            blended with its partner by ``own_weight`` instead. None: all are blended.
    """

    partner: Rows
    own_weight: Floats
    boxes: NDArray[np.int64] | None


def mix_images(images: Images, pairing: Pairing) -> Images:
    """Joins images, uint8 (n, height, width, 3), as drawn; a new array."""
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


def mix_targets(targets: Targets, weights: Scores, pairing: Pairing) -> tuple[Targets, Scores]:
    """Joins labels and sample weights as drawn.

    Cross-entropy is linear in the label, so the weighted losses of both images are kept exactly when the weights go into
    the mix: the label is the weighted mean of both, its weight the mean of theirs.

    Args:
        targets: (n, classes), each row a distribution.
        weights: (n,), sample weights, 0 or more.
        pairing: What is joined with what.

    Returns:
        float32 (n, classes) and float32 (n,).
    """
    weighted = pairing.own_weight * weights
    other = (1.0 - pairing.own_weight) * weights[pairing.partner]
    total = weighted + other
    # Where both weigh nothing any mix will do, but the label must still be a distribution.
    own_fraction = np.where(total > 0, weighted / np.where(total > 0, total, 1.0), pairing.own_weight)[:, None]
    mixed = own_fraction * targets + (1.0 - own_fraction) * targets[pairing.partner]
    return mixed.astype(np.float32), total.astype(np.float32)


@dataclass(frozen=True)
class BatchMixing(ABC):
    """Joins the images of a batch.

    Attributes:
        settings: As a recipe holds them.
    """

    settings: MixingSettings

    @abstractmethod
    def join(self, images: Images, rng: np.random.Generator) -> tuple[Images, Pairing]:
        """Joins images; the pairing goes to :func:`mix_targets`.

        Args:
            images: uint8 (n, height, width, 3), n at least 1; not written.
            rng: The only source of randomness.

        Returns:
            uint8 (n, height, width, 3), a new array, and what was joined with what.
        """

    def __call__(self, images: Images, targets: Targets, rng: np.random.Generator) -> tuple[Images, Targets]:
        """Draws and joins.

        Args:
            images: uint8 (n, height, width, 3); not written.
            targets: (n, classes), each row a distribution.
            rng: The only source of randomness.

        Returns:
            New images, uint8, and soft labels, float32 (n, classes).

        Raises:
            DataError: The arrays have other shapes.
        """
        check_images(images, type(self).__name__)
        if targets.ndim != 2 or len(targets) != len(images):
            raise DataError(
                f"{type(self).__name__}: expected targets as ({len(images)}, classes), got {targets.shape}."
            )
        mixed, pairing = self.join(images, rng)
        return mixed, mix_targets(targets, np.ones(len(images)), pairing)[0]


@dataclass(frozen=True)
class PairMixing(BatchMixing):
    """MixUp (arXiv:1710.09412), CutMix (arXiv:1905.04899), or one of the two for each image.

    The papers draw one weight, and CutMix one rectangle, for a batch; we draw one for each image. CutMix' labels are weighted
    by the area that is left inside the image.

    Example:
        >>> mixing = PairMixing(MixingSettings(name="mixup", alpha=0.4))
        >>> images, targets = np.zeros((4, 8, 8, 3), np.uint8), np.eye(4, dtype=np.float32)
        >>> mixing(images, targets, np.random.default_rng(0))[1].shape
        (4, 4)
    """

    def join(self, images: Images, rng: np.random.Generator) -> tuple[Images, Pairing]:
        """As ``BatchMixing.join``."""
        pairing = self.draw(len(images), images.shape[1], images.shape[2], rng)
        return mix_images(images, pairing), pairing

    def draw(self, count: int, height: int, width: int, rng: np.random.Generator) -> Pairing:
        """Draws partners and weights for ``count`` images of a size in pixels."""
        if self.settings.name == "mixup":
            return self._draw_mixup(count, rng)
        if self.settings.name == "cutmix":
            return self._draw_cutmix(count, height, width, rng)
        blended = self._draw_mixup(count, rng)
        patched = self._draw_cutmix(count, height, width, rng)
        assert patched.boxes is not None
        patch = rng.random(count) < 0.5
        return Pairing(
            np.where(patch, patched.partner, blended.partner),
            np.where(patch, patched.own_weight, blended.own_weight),
            np.where(patch[:, None], patched.boxes, 0),
        )

    def _draw_mixup(self, count: int, rng: np.random.Generator) -> Pairing:
        return Pairing(*self._draw_weights(count, rng), boxes=None)

    def _draw_cutmix(self, count: int, height: int, width: int, rng: np.random.Generator) -> Pairing:
        partner, own_weight = self._draw_weights(count, rng)
        side = np.sqrt(1.0 - own_weight)
        boxes = np.empty((count, 4), np.int64)
        for column, length in ((0, height), (2, width)):
            centre, half = rng.random(count) * length, side * length / 2
            boxes[:, column] = np.clip(np.rint(centre - half), 0, length)
            boxes[:, column + 1] = np.clip(np.rint(centre + half), 0, length)
        area = (boxes[:, 1] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 2])
        return Pairing(partner, 1.0 - area / (height * width), boxes)

    def _draw_weights(self, count: int, rng: np.random.Generator) -> tuple[Rows, Floats]:
        """Partners, and the weight of each image itself."""
        partner = rng.permutation(count)
        own_weight = rng.beta(self.settings.alpha, self.settings.alpha, size=count)
        mixed = rng.random(count) < self.settings.rate
        return np.where(mixed, partner, np.arange(count)), np.where(mixed, own_weight, 1.0)
