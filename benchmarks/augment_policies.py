"""Policies that ``augment.py`` compares ours with; in a module of its own, so that processes can import it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plain_opencv

from bloodauto.transforms import BatchPolicy, Policy
from bloodauto.transforms.engine import apply_stages, fuse
from bloodauto.transforms.images import empty_batch
from bloodauto.types import Image, Images


@dataclass(frozen=True)
class StepByStep(BatchPolicy):
    """A policy's draws and kernels, but each step applied separately: what fusion alone gains.

    Attributes:
        policy: What is drawn.
    """

    policy: Policy

    def batch(self, images: Sequence[Image], rng: np.random.Generator) -> Images:
        """As ``BatchPolicy.batch``."""
        out = empty_batch((len(images), *images[0].shape))
        scratch = np.empty_like(images[0])
        height, width = images[0].shape[:2]
        chains = self.policy.draw(len(images), height, width, rng)
        for image, target, chain in zip(images, out, chains, strict=True):
            apply_stages(image, target, scratch, [stage for step in chain for stage in fuse([step])])
        return out


@dataclass(frozen=True)
class PlainOpenCV(BatchPolicy):
    """RandAugment as it is commonly written with OpenCV.

    Attributes:
        num_ops: Operations for each image.
        magnitude: Their magnitude, 0-1.
    """

    num_ops: int
    magnitude: float

    def batch(self, images: Sequence[Image], rng: np.random.Generator) -> Images:
        """As ``BatchPolicy.batch``."""
        return np.stack([plain_opencv.rand_augment(image, self.num_ops, self.magnitude, rng) for image in images])
