"""Policies: what is done to each image of a batch.

A policy is a frozen value made of plain values, so a recipe can hold it. ``policy.draw`` draws a chain of steps for each
image and keeps nothing; calling the policy draws and applies: ``policy(images, rng) -> images``. Both are thread-safe as
long as threads do not share a generator. Nested policies are drawn into one chain, so flips, RandAugment's warps and
whatever else stands side by side are fused across policies.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass

import numpy as np

from bloodauto.errors import RecipeError
from bloodauto.transforms import geometry
from bloodauto.transforms.engine import apply_chains
from bloodauto.transforms.memory import empty_batch
from bloodauto.transforms.operations import UNIFORMS_PER_STEP, Operation, select_operations
from bloodauto.transforms.steps import Border, BorderValue, Chain, Kind, Step, Warp, parse_border
from bloodauto.types import check_images


class BatchPolicy(ABC):
    """What is done to the images of a batch."""

    @abstractmethod
    def batch(self, images: SequenceOf[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        """Draws and applies to a list of at least one image, all of one size; a new array uint8 (n, height, width, 3)."""

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draws and applies.

        Args:
            images: uint8 (n, height, width, 3), RGB, 0-255; not written.
            rng: the only source of randomness; the same state gives the same images.

        Returns:
            A new array, uint8 (n, height, width, 3).

        Raises:
            DataError: other images than these.
        """
        check_images(images, type(self).__name__)
        return self.batch(list(images), rng) if len(images) else images.copy()


class Policy(BatchPolicy):
    """What is done to each image of a batch, drawn as steps that an engine applies."""

    @abstractmethod
    def draw(self, count: int, height: int, width: int, rng: np.random.Generator) -> list[Chain]:
        """Draws the steps of ``count`` images of the given size, each image on its own."""

    def batch(self, images: SequenceOf[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        """Draws and applies to a list of at least one image, all of one size; a new array uint8 (n, height, width, 3)."""
        height, width = images[0].shape[:2]
        out = empty_batch((len(images), height, width, 3))
        apply_chains(images, self.draw(len(images), height, width, rng), out)
        return out


def check_fraction(value: float, name: str) -> None:
    """Raises:
    RecipeError: not a number in [0, 1].
    """
    if not (isinstance(value, (int, float)) and 0.0 <= value <= 1.0):
        raise RecipeError(f"{name}: expected a number in [0, 1], got {value!r}.")


def check_count(value: int, name: str, minimum: int) -> None:
    """Raises:
    RecipeError: not an integer, or below ``least``.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise RecipeError(f"{name}: expected an integer of at least {minimum}, got {value!r}.")


def lists_to_tuples(policy: Policy, *names: str) -> None:
    """Turns lists, which is what YAML gives, into tuples, so that the policy can be hashed and does not change."""
    for name in names:
        value = getattr(policy, name)
        if isinstance(value, list):
            object.__setattr__(policy, name, tuple(value))


def draw_steps(
    choices: np.ndarray,
    magnitudes: np.ndarray,
    operations: tuple[Operation, ...],
    height: int,
    width: int,
    border: Border,
    rng: np.random.Generator,
) -> list[Chain]:
    """Operations chosen for each image -> chains.

    Args:
        choices: int (n, k), index into ``operations`` for each image and place, -1 for none.
        magnitudes: float64 (n, k), in [0, 1].
    """
    count, places = choices.shape
    uniforms = rng.random((count, places, UNIFORMS_PER_STEP))
    slots: list[Step | None] = [None] * (count * places)
    # One pass for each operation rather than each image: the numbers of all images it was drawn for are made at once.
    flat = choices.ravel()
    order = np.argsort(flat, kind="stable")
    ends = np.searchsorted(flat[order], np.arange(-1, len(operations)), side="right").tolist()
    drawn_magnitudes, drawn_uniforms = magnitudes.ravel()[order], uniforms.reshape(-1, UNIFORMS_PER_STEP)[order]
    for operation, start, end in zip(operations, ends, ends[1:], strict=False):
        if start == end:
            continue
        payloads = operation.prepare(drawn_magnitudes[start:end], drawn_uniforms[start:end], height, width, border)
        for slot, payload in zip(order[start:end].tolist(), payloads, strict=True):
            slots[slot] = Step(operation.name, operation.kind, payload)
    return [[step for step in slots[row * places : (row + 1) * places] if step is not None] for row in range(count)]


@dataclass(frozen=True)
class RandAugment(Policy):
    """A few operations drawn evenly with replacement, all of one magnitude (arXiv 1909.13719).

    With ``operations="standard"`` the operations and what a magnitude does are those of keras-cv 0.9's RandAugment, so
    its published magnitudes mean the same here; its defaults are ``magnitude_std=0.15`` and ``rate=10/11``. Ours: what
    an operation shares between its parameters (solarize) shares the magnitude noise too.

    Attributes:
        num_ops: operations drawn for each image.
        magnitude: their magnitude, in [0, 1]; what it means for each is in ``OPERATIONS``.
        rate: the chance of each drawn operation to be applied, in [0, 1].
        magnitude_std: standard deviation of normal noise on the magnitude of each drawn operation, clipped to [0, 1].
        operations: ``standard``, ``paper``, ``cells``, or names of operations.
        border: what geometric operations read outside the image: the name of a mode or an RGB colour.
    """

    num_ops: int = 3
    magnitude: float = 0.5
    rate: float = 1.0
    magnitude_std: float = 0.0
    operations: str | tuple[str, ...] = "standard"
    border: BorderValue = "reflect"

    def __post_init__(self) -> None:
        lists_to_tuples(self, "operations", "border")
        check_count(self.num_ops, "num_ops", minimum=0)
        for name in ("magnitude", "rate", "magnitude_std"):
            check_fraction(getattr(self, name), name)
        select_operations(self.operations)
        parse_border(self.border)

    def draw(self, count: int, height: int, width: int, rng: np.random.Generator) -> list[Chain]:
        operations = select_operations(self.operations)
        shape = (count, self.num_ops)
        choices = rng.integers(len(operations), size=shape)
        choices[rng.random(shape) >= self.rate] = -1
        magnitudes = np.full(shape, float(self.magnitude))
        if self.magnitude_std > 0:
            magnitudes = np.clip(rng.normal(magnitudes, self.magnitude_std), 0.0, 1.0)
        return draw_steps(choices, magnitudes, operations, height, width, parse_border(self.border), rng)


@dataclass(frozen=True)
class TrivialAugment(Policy):
    """One operation with a magnitude drawn evenly from [0, ``max_magnitude``] (arXiv 2103.10158).

    The paper draws from 31 steps of a wide range; ours is continuous.

    Attributes:
        strongest: the upper end of the magnitudes, in [0, 1].
        operations: ``standard``, ``paper``, ``cells``, or names of operations.
        border: what geometric operations read outside the image: the name of a mode or an RGB colour.
    """

    max_magnitude: float = 1.0
    operations: str | tuple[str, ...] = "paper"
    border: BorderValue = "reflect"

    def __post_init__(self) -> None:
        lists_to_tuples(self, "operations", "border")
        check_fraction(self.max_magnitude, "max_magnitude")
        select_operations(self.operations)
        parse_border(self.border)

    def draw(self, count: int, height: int, width: int, rng: np.random.Generator) -> list[Chain]:
        operations = select_operations(self.operations)
        choices = rng.integers(len(operations), size=(count, 1))
        magnitudes = self.max_magnitude * rng.random((count, 1))
        return draw_steps(choices, magnitudes, operations, height, width, parse_border(self.border), rng)


@dataclass(frozen=True)
class Apply(Policy):
    """One operation on a share of the images.

    Attributes:
        operation: the name of an operation.
        magnitude: in [0, 1].
        rate: the share of images it is applied to, in [0, 1].
        border: what a geometric operation reads outside the image: the name of a mode or an RGB colour.
    """

    operation: str
    magnitude: float = 0.5
    rate: float = 1.0
    border: BorderValue = "reflect"

    def __post_init__(self) -> None:
        lists_to_tuples(self, "border")
        select_operations((self.operation,))
        check_fraction(self.magnitude, "magnitude")
        check_fraction(self.rate, "rate")
        parse_border(self.border)

    def draw(self, count: int, height: int, width: int, rng: np.random.Generator) -> list[Chain]:
        choices = np.where(rng.random((count, 1)) < self.rate, 0, -1)
        magnitudes = np.full((count, 1), float(self.magnitude))
        operations = select_operations((self.operation,))
        return draw_steps(choices, magnitudes, operations, height, width, parse_border(self.border), rng)


@dataclass(frozen=True)
class StainJitter(Policy):
    """Changes how strongly each stain took, on a share of the images; see ``bloodauto.transforms.colour.stain_jitter``.

    Attributes:
        magnitude: in [0, 1]; 1 scales each stain's optical density by up to half.
        rate: the share of images it is applied to, in [0, 1].
    """

    magnitude: float = 0.5
    rate: float = 1.0

    def __post_init__(self) -> None:
        check_fraction(self.magnitude, "magnitude")
        check_fraction(self.rate, "rate")

    def draw(self, count: int, height: int, width: int, rng: np.random.Generator) -> list[Chain]:
        return Apply("stain_jitter", self.magnitude, self.rate).draw(count, height, width, rng)


@dataclass(frozen=True)
class Symmetries(Policy):
    """Flips and quarter turns: the symmetries of a square, each as likely as any other that is allowed.

    On images that are not square a quarter turn is about the middle and keeps the size, so parts are lost and others
    filled.

    Attributes:
        flips: whether images are flipped left-right, top-bottom or both.
        quarter_turns: whether images are turned by 90 degrees and its multiples.
    """

    flips: bool = True
    quarter_turns: bool = True

    def draw(self, count: int, height: int, width: int, rng: np.random.Generator) -> list[Chain]:
        allowed = (0, *((4, 6, 2) if self.flips else ()), *((1, 3, 2) if self.quarter_turns else ()))
        if self.flips and self.quarter_turns:
            allowed = tuple(range(8))
        index = np.array(allowed)[rng.integers(len(allowed), size=count)]
        matrices = geometry.symmetry(index, height, width)
        return [
            [] if which == 0 else [Step("symmetry", Kind.GEOMETRIC, Warp(matrix, None, height == width))]
            for which, matrix in zip(index.tolist(), matrices, strict=True)
        ]


@dataclass(frozen=True)
class Sequence(Policy):
    """Policies one after another, fused across their bounds.

    Attributes:
        policies: in the order they are applied; none leaves images as they are.
    """

    policies: tuple[Policy, ...]

    def __post_init__(self) -> None:
        lists_to_tuples(self, "policies")

    def draw(self, count: int, height: int, width: int, rng: np.random.Generator) -> list[Chain]:
        chains: list[Chain] = [[] for _ in range(count)]
        for policy in self.policies:
            for chain, more in zip(chains, policy.draw(count, height, width, rng), strict=True):
                chain.extend(more)
        return chains


@dataclass(frozen=True)
class OneOf(Policy):
    """One policy for each image, drawn by weight.

    Attributes:
        policies: at least one.
        weights: chances in proportion, one for each policy; evenly when empty.
    """

    policies: tuple[Policy, ...]
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        lists_to_tuples(self, "policies", "weights")
        if not self.policies:
            raise RecipeError("policies: expected at least one policy, got none.")
        if self.weights and (
            len(self.weights) != len(self.policies) or min(self.weights) < 0 or not 0 < sum(self.weights) < np.inf
        ):
            raise RecipeError(
                f"weights: expected {len(self.policies)} numbers of at least 0 and not all 0, got {self.weights!r}."
            )

    def draw(self, count: int, height: int, width: int, rng: np.random.Generator) -> list[Chain]:
        weights = np.array(self.weights if self.weights else [1.0] * len(self.policies))
        which = rng.choice(len(self.policies), size=count, p=weights / weights.sum())
        chains: list[Chain] = [[] for _ in range(count)]
        for index, policy in enumerate(self.policies):
            rows = np.nonzero(which == index)[0].tolist()
            for row, chain in zip(rows, policy.draw(len(rows), height, width, rng), strict=True):
                chains[row] = chain
        return chains
