"""Policies: what is done to each image of a batch.

A policy is a frozen value, made of a recipe's settings, that can be compared and sent to another process. ``policy.draw`` draws
a chain of steps for each image; calling the policy draws and applies: ``policy(images, rng) -> images``. A policy keeps no
state, so threads may share it as long as they do not share a generator. Nested policies are drawn into one chain, so flips,
RandAugment's warps and their neighbours are fused across policies.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bloodauto.config.recipe import AugMixSettings, OperationStep, RandAugmentSettings, TrivialAugmentSettings
from bloodauto.transforms.engine import Stage, apply_chains, apply_stages, fuse
from bloodauto.transforms.operations import OPERATIONS, select_operations
from bloodauto.transforms.operations.geometry import symmetry
from bloodauto.transforms.registry import UNIFORMS_PER_STEP, Operation
from bloodauto.transforms.steps import Chain, Filter, Kind, Step, Warp
from bloodauto.types import Floats, Image, Images, Rows, check_images


class BatchPolicy(ABC):
    """What is done to the images of a batch."""

    @abstractmethod
    def batch(self, images: SequenceOf[Image], rng: np.random.Generator) -> Images:
        """Draws and applies.

        Args:
            images: uint8 (height, width, 3) each, at least one, all of one size; not written.
            rng: The only source of randomness.

        Returns:
            uint8 (n, height, width, 3), a new array.
        """

    def __call__(self, images: Images, rng: np.random.Generator) -> Images:
        """Draws and applies, with a check of the images.

        Args:
            images: uint8 (n, height, width, 3), RGB, 0-255; not written.
            rng: The only source of randomness; the same state gives the same images.

        Returns:
            uint8 (n, height, width, 3), a new array.

        Raises:
            DataError: The images are not such an array.
        """
        check_images(images, type(self).__name__)
        return self.batch(list(images), rng) if len(images) else images.copy()


class Policy(BatchPolicy):
    """What is done to each image of a batch, drawn as steps that the engine fuses and applies."""

    @abstractmethod
    def draw(self, count: int, height: int, width: int, rng: np.random.Generator) -> list[Chain]:
        """Draws the steps of images, each image on its own.

        Args:
            count: The number of images.
            height: The height of the images in pixels.
            width: The width of the images in pixels.
            rng: The only source of randomness.

        Returns:
            One chain for each image.
        """

    @abstractmethod
    def max_strengths(self) -> Mapping[str, float]:
        """The operations that the policy may apply, with the largest strength of each, in the operation's unit.

        Noise on magnitudes is not counted.
        """

    def batch(self, images: SequenceOf[Image], rng: np.random.Generator) -> Images:
        """As ``BatchPolicy.batch``."""
        height, width = images[0].shape[:2]
        return apply_chains(images, self.draw(len(images), height, width, rng))


def largest_strengths(strengths: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The largest strength of each operation over several policies' ``max_strengths``."""
    largest: dict[str, float] = {}
    for mapping in strengths:
        for name, strength in mapping.items():
            largest[name] = max(largest.get(name, 0.0), strength)
    return largest


def _strengths_at(magnitude: float, operations: str | SequenceOf[str]) -> dict[str, float]:
    return {operation.name: magnitude * operation.spec.limit for operation in select_operations(operations)}


def _draw_steps(
    choices: Rows,
    magnitudes: Floats,
    operations: SequenceOf[Operation],
    size: tuple[int, int],
    rng: np.random.Generator,
) -> list[Chain]:
    """Operations chosen for each image -> chains.

    Args:
        choices: int (n, k), index into ``operations`` for each image and slot, -1 for none.
        magnitudes: float64 (n, k), in [0, 1].
        operations: What ``choices`` refers to.
        size: Height and width of the images in pixels.
        rng: The source of the operations' uniform numbers.

    Returns:
        n chains.
    """
    count, slots = choices.shape
    uniforms = rng.random((count, slots, UNIFORMS_PER_STEP))
    steps: list[Step | None] = [None] * (count * slots)
    # One pass for each operation rather than each image: the numbers of all images it was drawn for are made at once.
    flat = choices.ravel()
    order = np.argsort(flat, kind="stable")
    ends = np.searchsorted(flat[order], np.arange(-1, len(operations)), side="right").tolist()
    drawn_magnitudes, drawn_uniforms = magnitudes.ravel()[order], uniforms.reshape(-1, UNIFORMS_PER_STEP)[order]
    for operation, start, end in zip(operations, ends, ends[1:], strict=False):
        if start == end:
            continue
        payloads = operation.prepare(drawn_magnitudes[start:end], drawn_uniforms[start:end], *size)
        for slot, payload in zip(order[start:end].tolist(), payloads, strict=True):
            steps[slot] = Step(operation.name, operation.kind, payload)
    return [[step for step in steps[row * slots : (row + 1) * slots] if step is not None] for row in range(count)]


@dataclass(frozen=True)
class RandAugment(Policy):
    """A few operations of one magnitude, drawn with replacement and with equal chances (arXiv:1909.13719).

    With ``operations="standard"`` the operations and what a magnitude does are those of keras-cv 0.9's RandAugment, so its
    published magnitudes mean the same here; its defaults are ``magnitude_std=0.15`` and ``rate=10/11``. Our deviation: what
    one strength controls in several parameters of an operation (solarize) has the same magnitude noise in all of them.

    Attributes:
        settings: As a recipe holds them.

    Example:
        >>> policy = RandAugment(RandAugmentSettings(num_ops=2, magnitude=0.5, operations="cells"))
        >>> policy(np.zeros((4, 96, 96, 3), np.uint8), np.random.default_rng(0)).shape
        (4, 96, 96, 3)
    """

    settings: RandAugmentSettings

    def draw(self, count: int, height: int, width: int, rng: np.random.Generator) -> list[Chain]:
        """As ``Policy.draw``."""
        operations = select_operations(self.settings.operations)
        shape = (count, self.settings.num_ops)
        choices = rng.integers(len(operations), size=shape)
        choices[rng.random(shape) >= self.settings.rate] = -1
        magnitudes = np.full(shape, float(self.settings.magnitude))
        if self.settings.magnitude_std > 0:
            magnitudes = np.clip(rng.normal(magnitudes, self.settings.magnitude_std), 0.0, 1.0)
        return _draw_steps(choices, magnitudes, operations, (height, width), rng)

    def max_strengths(self) -> Mapping[str, float]:
        """As ``Policy.max_strengths``."""
        return _strengths_at(self.settings.magnitude, self.settings.operations)


@dataclass(frozen=True)
class TrivialAugment(Policy):
    """One operation of a magnitude that is drawn uniformly (arXiv:2103.10158).

    The paper draws from 31 steps of a wide range; our magnitudes are continuous.

    Attributes:
        settings: As a recipe holds them.
    """

    settings: TrivialAugmentSettings

    def draw(self, count: int, height: int, width: int, rng: np.random.Generator) -> list[Chain]:
        """As ``Policy.draw``."""
        operations = select_operations(self.settings.operations)
        choices = rng.integers(len(operations), size=(count, 1))
        magnitudes = self.settings.max_magnitude * rng.random((count, 1))
        return _draw_steps(choices, magnitudes, operations, (height, width), rng)

    def max_strengths(self) -> Mapping[str, float]:
        """As ``Policy.max_strengths``."""
        return _strengths_at(self.settings.max_magnitude, self.settings.operations)


@dataclass(frozen=True)
class ApplyOperation(Policy):
    """One operation on a fraction of the images.

    What an operation draws besides its strength, such as the direction of ``translate``, it draws for each image as well.

    Attributes:
        step: The operation, its magnitude or its range, and the fraction.

    Example:
        >>> policy = ApplyOperation(OperationStep(operation="rotate", range_degrees=(-15.0, 15.0), rate=0.5))
        >>> policy(np.zeros((4, 96, 96, 3), np.uint8), np.random.default_rng(0)).shape
        (4, 96, 96, 3)
    """

    step: OperationStep

    def draw(self, count: int, height: int, width: int, rng: np.random.Generator) -> list[Chain]:
        """As ``Policy.draw``."""
        operation = OPERATIONS[self.step.operation]
        choices = np.where(rng.random((count, 1)) < self.step.rate, 0, -1)
        if self.step.interval is None:
            magnitudes = np.full((count, 1), self._magnitude())
        else:
            low, high = self.step.interval
            magnitudes = operation.strengths_of(low + (high - low) * rng.random((count, 1)))
            operation = operation.with_strengths_as_magnitudes()
        return _draw_steps(choices, magnitudes, (operation,), (height, width), rng)

    def max_strengths(self) -> Mapping[str, float]:
        """As ``Policy.max_strengths``."""
        operation = OPERATIONS[self.step.operation]
        if self.step.interval is None:
            return {operation.name: self._magnitude() * operation.spec.limit}
        return {operation.name: float(np.abs(operation.strengths_of(np.array(self.step.interval))).max())}

    def _magnitude(self) -> float:
        # An operation without a strength ignores its magnitude.
        return 1.0 if self.step.magnitude is None else float(self.step.magnitude)


@dataclass(frozen=True)
class Symmetries(Policy):
    """The eight symmetries of the square, all equally likely: flips and quarter turns.

    On an image that is not square a quarter turn is about the centre and keeps the size, so parts are lost and others are
    filled by reflection.
    """

    def draw(self, count: int, height: int, width: int, rng: np.random.Generator) -> list[Chain]:
        """As ``Policy.draw``."""
        index = rng.integers(8, size=count)
        matrices = symmetry(index, height, width)
        return [
            [] if which == 0 else [Step("symmetry", Kind.GEOMETRIC, Warp(matrix, height == width))]
            for which, matrix in zip(index.tolist(), matrices, strict=True)
        ]

    def max_strengths(self) -> Mapping[str, float]:
        """As ``Policy.max_strengths``: no operation, since a symmetry has no strength."""
        return {}


@dataclass(frozen=True)
class Sequence(Policy):
    """Policies one after another, fused across their bounds.

    Attributes:
        policies: In the order they are applied; none leaves images as they are.
    """

    policies: tuple[Policy, ...]

    def draw(self, count: int, height: int, width: int, rng: np.random.Generator) -> list[Chain]:
        """As ``Policy.draw``."""
        chains: list[Chain] = [[] for _ in range(count)]
        for policy in self.policies:
            for chain, more in zip(chains, policy.draw(count, height, width, rng), strict=True):
                chain.extend(more)
        return chains

    def max_strengths(self) -> Mapping[str, float]:
        """As ``Policy.max_strengths``."""
        return largest_strengths(policy.max_strengths() for policy in self.policies)


@dataclass(frozen=True)
class OneOf(Policy):
    """One of several policies, drawn for each image.

    Attributes:
        policies: At least one.
        weights: Chances in proportion, one for each policy, not all 0; empty: equal chances.
    """

    policies: tuple[Policy, ...]
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        assert self.policies, "policies: expected at least one policy"
        assert len(self.weights) in (0, len(self.policies)), (
            f"weights: expected {len(self.policies)}, got {self.weights}"
        )

    def draw(self, count: int, height: int, width: int, rng: np.random.Generator) -> list[Chain]:
        """As ``Policy.draw``."""
        weights = np.array(self.weights if self.weights else [1.0] * len(self.policies))
        which = rng.choice(len(self.policies), size=count, p=weights / weights.sum())
        chains: list[Chain] = [[] for _ in range(count)]
        for index, policy in enumerate(self.policies):
            rows = np.nonzero(which == index)[0].tolist()
            for row, chain in zip(rows, policy.draw(len(rows), height, width, rng), strict=True):
                chains[row] = chain
        return chains

    def max_strengths(self) -> Mapping[str, float]:
        """As ``Policy.max_strengths``."""
        return largest_strengths(policy.max_strengths() for policy in self.policies)


class Blend(NamedTuple):
    """What AugMix drew for one image.

    Attributes:
        own_weight: The weight of the image itself.
        versions: The weight and the stages of each augmented version.
    """

    own_weight: float
    versions: tuple[tuple[float, list[Stage]], ...]


def _apply_blend(image: Image, target: Image, blend: Blend) -> None:
    """Sums the image and its versions by weight."""
    total = image * np.float32(blend.own_weight)
    version, scratch = np.empty_like(image), np.empty_like(image)
    for weight, stages in blend.versions:
        apply_stages(image, version, scratch, stages)
        total += version * np.float32(weight)
    np.copyto(target, np.clip(np.rint(total), 0, 255), casting="unsafe")


@dataclass(frozen=True)
class AugMix(Policy):
    """Several chains of operations, blended with the image itself (arXiv:1912.02781).

    The paper's consistency loss is not a part of it. Magnitudes are drawn uniformly up to ``magnitude``, as the paper's
    levels are.

    Attributes:
        settings: As a recipe holds them.
    """

    settings: AugMixSettings

    def draw(self, count: int, height: int, width: int, rng: np.random.Generator) -> list[Chain]:
        """As ``Policy.draw``."""
        settings = self.settings
        operations = select_operations(settings.operations)
        shape = (count * settings.width, settings.depth)
        choices = rng.integers(len(operations), size=shape)
        depths = rng.integers(1, settings.depth + 1, size=(len(choices), 1))
        choices[np.arange(settings.depth) >= depths] = -1
        magnitudes = settings.magnitude * rng.random(shape)
        versions = _draw_steps(choices, magnitudes, operations, (height, width), rng)
        own_weight = rng.beta(settings.alpha, settings.alpha, size=count)
        weights = (1.0 - own_weight)[:, None] * rng.dirichlet(np.full(settings.width, settings.alpha), size=count)
        chains: list[Chain] = []
        for row in range(count):
            stages = [fuse(chain) for chain in versions[row * settings.width : (row + 1) * settings.width]]
            blend = Blend(float(own_weight[row]), tuple(zip(weights[row].tolist(), stages, strict=True)))
            chains.append([Step("augmix", Kind.FILTER, Filter(_apply_blend, blend))])
        return chains

    def max_strengths(self) -> Mapping[str, float]:
        """As ``Policy.max_strengths``."""
        return _strengths_at(self.settings.magnitude, self.settings.operations)
