"""AugMix: an image blended with several differently augmented versions of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bloodauto.errors import RecipeError
from bloodauto.transforms.engine import Stage, apply_stages, fuse
from bloodauto.transforms.operations import select_operations
from bloodauto.transforms.policies import Policy, check_count, check_fraction, draw_steps, lists_to_tuples
from bloodauto.transforms.steps import BorderValue, Chain, Filter, Kind, Step, parse_border


class Blend(NamedTuple):
    """What AugMix drew for one image: its own weight, then the weight and the stages of each version."""

    own_weight: float
    versions: tuple[tuple[float, list[Stage]], ...]


def apply_blend(image: np.ndarray, target: np.ndarray, blend: Blend) -> None:
    """Sums the image and its versions by weight."""
    total = image * np.float32(blend.own_weight)
    version, scratch = np.empty_like(image), np.empty_like(image)
    for weight, stages in blend.versions:
        apply_stages(image, version, scratch, stages)
        total += version * np.float32(weight)
    np.copyto(target, np.clip(np.rint(total), 0, 255), casting="unsafe")


@dataclass(frozen=True)
class AugMix(Policy):
    """Several chains of operations, mixed with the image itself (arXiv 1912.02781).

    Only the images; the paper's consistency loss is the training's affair. Magnitudes are drawn evenly from
    [0, ``magnitude``], as the paper's levels are.

    Attributes:
        width: how many augmented versions are mixed.
        depth: the most operations of one version; each draws 1..depth.
        magnitude: the strongest magnitude, in [0, 1].
        alpha: parameter of the Dirichlet (versions) and Beta (image against versions) distributions; greater than 0.
        operations: ``aug_mix`` (the paper's), ``standard``, ``paper``, ``cells``, or names of operations.
        border: what geometric operations read outside the image: the name of a mode or an RGB colour.
    """

    width: int = 3
    depth: int = 3
    magnitude: float = 0.3
    alpha: float = 1.0
    operations: str | tuple[str, ...] = "aug_mix"
    border: BorderValue = "reflect"

    def __post_init__(self) -> None:
        lists_to_tuples(self, "operations", "border")
        check_count(self.width, "width", minimum=1)
        check_count(self.depth, "depth", minimum=1)
        check_fraction(self.magnitude, "magnitude")
        if not 0.0 < self.alpha < np.inf:
            raise RecipeError(f"alpha: expected a number above 0, got {self.alpha!r}.")
        select_operations(self.operations)
        parse_border(self.border)

    def draw(self, count: int, height: int, width: int, rng: np.random.Generator) -> list[Chain]:
        operations = select_operations(self.operations)
        shape = (count * self.width, self.depth)
        choices = rng.integers(len(operations), size=shape)
        depths = rng.integers(1, self.depth + 1, size=(len(choices), 1))
        choices[np.arange(self.depth) >= depths] = -1
        magnitudes = self.magnitude * rng.random(shape)
        versions = draw_steps(choices, magnitudes, operations, height, width, parse_border(self.border), rng)
        own_weight = rng.beta(self.alpha, self.alpha, size=count)
        weights = (1.0 - own_weight)[:, None] * rng.dirichlet(np.full(self.width, self.alpha), size=count)
        chains: list[Chain] = []
        for row in range(count):
            stages = [fuse(chain) for chain in versions[row * self.width : (row + 1) * self.width]]
            blend = Blend(float(own_weight[row]), tuple(zip(weights[row].tolist(), stages, strict=True)))
            chains.append([Step("augmix", Kind.FILTER, Filter(apply_blend, blend))])
        return chains
