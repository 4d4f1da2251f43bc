"""What ``benchmarks/augment.py`` compares our policies with; in a module of its own, so that processes can import it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import plain_opencv

from bloodauto.transforms import BatchPolicy, Policy
from bloodauto.transforms.engine import apply_stages, fuse
from bloodauto.transforms.images import empty_batch


@dataclass(frozen=True)
class OneByOne(BatchPolicy):
    """A policy's draws, each step applied on its own."""

    policy: Policy

    def batch(self, images: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        out = empty_batch((len(images), *images[0].shape))
        scratch = np.empty_like(images[0])
        chains = self.policy.draw(len(images), *images[0].shape[:2], rng)
        for image, target, chain in zip(images, out, chains, strict=True):
            apply_stages(image, target, scratch, [stage for step in chain for stage in fuse([step])])
        return out


@dataclass(frozen=True)
class Plain(BatchPolicy):
    """The common way."""

    num_ops: int
    magnitude: float

    def batch(self, images: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        return np.stack([plain_opencv.rand_augment(image, self.num_ops, self.magnitude, rng) for image in images])
