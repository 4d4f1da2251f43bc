"""Applies single operations and chains, for the tests of this folder."""

from __future__ import annotations

import numpy as np

from bloodauto.transforms import OPERATIONS
from bloodauto.transforms.engine import apply_stages, fuse
from bloodauto.transforms.steps import Chain, Step
from bloodauto.types import Floats, Image

#: Uniform numbers of an operation besides the one of its strength, (1, 6).
ZEROS = np.zeros((1, 6))
HALVES = np.full((1, 6), 0.5)


def apply_chain(image: Image, chain: Chain) -> Image:
    """Fuses and applies a chain; a new array."""
    out = np.empty_like(image)
    apply_stages(image, out, np.empty_like(image), fuse(chain))
    return out


def apply_operation(name: str, strength: float, image: Image, uniforms: Floats = HALVES) -> Image:
    """Applies an operation at a strength in its unit."""
    operation = OPERATIONS[name]
    payload = operation.build(np.array([strength]), uniforms, *image.shape[:2])[0]
    return apply_chain(image, [Step(name, operation.kind, payload)])
